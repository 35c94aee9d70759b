//! What a fleet needs of others: an address for its numbers, receivers of notifications, whom checks ask. Nobody is told
//! anything.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use super::{About, Finding, Level, about};
use crate::checks::{self, Found};
use crate::controller::notify;
use crate::fleet::model::{Ask, Check, Fleet, Given, Notify, NotifyKind, Service};
use crate::https::Client;
use crate::rollout::world::Answer;

/// Longest wait for a page of numbers.
const PAGE: Duration = Duration::from_secs(5);

pub(super) async fn examine(fleet: &Fleet, found: &mut Vec<Finding>) {
    let http = Client::default();
    if let Some(address) = fleet.metrics {
        numbers(fleet, address, &http, &mut about(found, "metrics")).await;
    }
    for target in fleet.notify.values() {
        receiver(target, &http, &mut about(found, &format!("notify {}", target.name))).await;
    }
    for service in fleet.services.values() {
        for check in &service.checks {
            let mut of = about(found, &format!("check {} of {}", check.name, service.name));
            question(fleet, service, check, &http, &mut of).await;
        }
    }
}

async fn numbers(fleet: &Fleet, address: SocketAddr, http: &Client, of: &mut About<'_>) {
    match TcpListener::bind(address) {
        Ok(_closed_again) => of.ok(&format!("{address} is free for the controller")),
        Err(e) if e.kind() == ErrorKind::AddrInUse => {
            let url = format!("http://{address}/metrics");
            let page = tokio::time::timeout(PAGE, http.get(&url)).await;
            let ours = format!("{{fleet=\"{}\"", fleet.name);
            if page.is_ok_and(|page| page.is_ok_and(|(_, text)| text.contains(&ours))) {
                return of.ok(&format!("the controller serves {url}"));
            }
            of.warn(
                &format!(
                    "{address} is taken by another process: the controller cannot serve its numbers there"
                ),
                &format!(
                    "end what 'ss -ltnp sport = :{}' shows, or change 'listen' in [metrics]",
                    address.port()
                ),
            );
        }
        Err(e) => of.warn(
            &format!("nothing can be served on {address}: {e}"),
            "write an address of this machine to 'listen' in [metrics]",
        ),
    }
}

async fn receiver(target: &Notify, http: &Client, of: &mut About<'_>) {
    let name = &target.name;
    let (given, key) = match &target.to {
        NotifyKind::Webhook { url, token, .. } => (vec![Some(url), token.as_ref()], "url"),
        NotifyKind::Slack { url } => (vec![Some(url)], "url"),
        NotifyKind::Command { .. } => (Vec::new(), "run"),
    };
    // The environment that counts is the controller's; this one is somebody else's.
    let unset = given.into_iter().flatten().find_map(|given| match given {
        Given::Env(name) if std::env::var_os(name).is_none() => Some(name),
        _ => None,
    });
    if let Some(variable) = unset {
        return of.warn(
            &format!("{variable} is not set here: whether the controller can tell it is not known"),
            &format!(
                "set {variable} for 'pilothouse serve' (a controller in the background has no such variables), and run \
                 doctor with it; or name a file in [notify.{name}]"
            ),
        );
    }
    match notify::look(http, target).await {
        Ok(()) => of.ok("is there; it was told nothing"),
        Err(why) => of.warn(
            &format!("it cannot be told: {why}"),
            &format!("put right '{key}' in [notify.{name}], or what it names"),
        ),
    }
}

async fn question(fleet: &Fleet, service: &Service, check: &Check, http: &Client, of: &mut About<'_>) {
    let whom = match &check.ask {
        Ask::Prometheus { url, .. } | Ask::Http { url } => url.as_str(),
        Ask::Command { argv } => argv.first().map(String::as_str).unwrap_or_default(),
    };
    let table = format!("[services.{}.checks.{}]", service.name, check.name);
    // A phase waits for a good answer; one that nobody acts upon is waited for by nobody.
    let level = if check.dry_run { Level::Warn } else { Level::Fail };
    let cure = match check.ask {
        Ask::Command { .. } => format!("put the program there, or change 'command' in {table}"),
        _ => format!("see that it answers this machine, or change 'url' in {table}"),
    };
    let mut nobody = |why: &str| {
        let what = format!("{whom} gives no answer: {why}; a release would wait for one, and then pause");
        of.add(level, &what, &cure);
    };
    match checks::look(check, &fleet.name, &service.name, http).await {
        Found::There => of.ok(&format!("{whom} is there; it is asked in a release")),
        Found::Missing(why) => nobody(why.as_str()),
        Found::Answered((Answer::Good, words)) => of.ok(&format!("{whom} says: {words}")),
        Found::Answered((Answer::Unknown, words)) => nobody(words.as_str()),
        Found::Answered((Answer::Bad, words)) => of.warn(
            &format!("{whom} says no as it is now: {words}"),
            &format!(
                "a release that hears it {} times in a row is taken back: see what is wrong there",
                check.failures
            ),
        ),
    }
}
