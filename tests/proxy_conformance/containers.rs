//! Proxies in containers: the same promises, and what is said where a container does not fit.

use std::path::Path;
use std::process::Command;

use pilothouse::fleet::model::Container;
use pilothouse::proxy::nginx::{Nginx, Settings};
use pilothouse::proxy::{Proxy as _, ProxyError};
use pilothouse::rollout::world::Slot;

use crate::servers::runner::Runner;
use crate::support::{Backend, Harness, OWNER, bp, free_addr, route, service};
use crate::{suite, visitors};

/// What depends on where files, programs and processes of the proxy are.
macro_rules! in_a_container {
    ($($kind:ident: $open:ident;)*) => {$(
        mod $kind {
            use super::*;

            conforms!(
                Harness::$open().await;
                suite: some_changes_lose_nothing,
                drain,
                slots_alternate,
                hidden_failures_are_counted,
                counters,
                restart_keeps,
                scenario_22_a_websocket_is_held_through_a_drain
            );
            conforms!(Harness::$open().await; visitors: rules_and_places_survive);

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn nothing_is_wrong_with_it() {
                let Some(h) = Harness::$open().await else { return };
                h.up(&route(Slot::A, &[], &[], pilothouse::fleet::names::Bp::ZERO)).await;
                let advice = h.proxy.examine(&crate::support::declared().iter().collect::<Vec<_>>()).await;
                assert!(advice.iter().all(|a| !a.fails), "{advice:?}");
            }
        }
    )*};
}

in_a_container! {
    haproxy: haproxy_in_container;
    nginx: nginx_in_container;
    caddy: caddy_in_container;
    traefik: traefik_in_container;
    envoy: envoy_in_container;
}

/// A driver for an nginx in a container.
fn driver(dir: &Path, container: &Container) -> Nginx {
    let settings = Settings {
        dir: dir.join("own"),
        config: dir.join("op.conf"),
        pid: dir.join("nginx.pid"),
        status: free_addr(),
        binary: "nginx".into(),
        log: None,
    };
    let nginx = Nginx::new("front".parse().unwrap(), settings, "shop".parse().unwrap(), OWNER.into());
    nginx.within(Some(container))
}

async fn refused(nginx: &Nginx) -> String {
    match nginx.can(&service(), &[], false).await {
        Err(ProxyError::Refused(why)) => why.to_string(),
        other => panic!("{other:?}"),
    }
}

/// A container that does not see the files, or has a network of its own, is found out before a release, with what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_does_not_fit_is_refused_when_planning() {
    let (dir, other) = (Harness::directory(), Harness::directory());
    let Some(runner) = Runner::container(other.path(), Path::new("/usr/bin/sleep")).await else { return };
    let mut runner = runner.with(|c| c.network = "none");
    let settings = runner.settings().unwrap();
    let why = refused(&driver(dir.path(), &settings)).await;
    assert!(why.contains("is not there"), "{why}");
    let mut sleep = Command::new("/usr/bin/sleep");
    sleep.arg("60");
    runner.start(sleep, &other.path().join("out.log")).await;
    let why = refused(&driver(dir.path(), &settings)).await;
    let own = dir.path().join("own");
    assert!(why.contains(&format!("--volume {0}:{0}", own.display())), "{why}");
    assert!(why.contains("--network host"), "{why}");
    let why = refused(&driver(other.path(), &settings)).await;
    assert!(!why.contains("--volume") && why.contains("--network host"), "{why}");
    // It is no nginx.
    let looked = driver(other.path(), &settings).read_back().await;
    assert!(matches!(looked, Err(ProxyError::Unknown(_))), "{looked:?}");

    let nowhere = Container { name: settings.name, engine: dir.path().join("docker.sock") };
    let looked = driver(dir.path(), &nowhere).can(&service(), &[], false).await;
    assert!(matches!(looked, Err(ProxyError::Unknown(_))), "{looked:?}");
}

/// Traffic is not the engine's: while it does not answer, shares are changed and read back as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_is_gone_keeps_no_share_from_being_set() {
    let dir = Harness::directory();
    let Some(program) = crate::require::program("nginx") else { return };
    let Some(runner) = Runner::container(dir.path(), &program).await else { return };
    let socket = dir.path().join("docker.sock");
    let engine = runner.settings().unwrap().engine;
    std::os::unix::fs::symlink(&engine, &socket).unwrap();
    let runner = runner.with(|c| c.told = socket.clone());
    let Some(h) = Harness::nginx_by(true, "", dir, runner).await else { return };
    let (a, b) = (Backend::start(1, 1).await, Backend::start(2, 1).await);
    h.up(&route(Slot::A, &[&a], &[&b], bp(5))).await;
    std::fs::remove_file(&socket).unwrap();
    for percent in [25, 50, 0] {
        h.up(&route(Slot::A, &[&a], &[&b], bp(percent))).await;
    }
    // Another set of instances needs its program.
    let error = h.apply(&route(Slot::A, &[&b], &[], bp(0)), pilothouse::proxy::Direction::Up).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("docker.sock"), "{error}");
}
