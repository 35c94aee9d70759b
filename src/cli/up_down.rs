//! `up` and `down`: a fleet comes and goes.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Exit;
use super::fleet::{Fleet, failed};
use super::follow::{Following, follow};
use super::out::{Output, complain, say};

/// `up [SERVICE…]`
#[derive(clap::Args)]
pub(super) struct UpArgs {
    /// Only these services
    services: Vec<String>,
    /// Take over what runs already as the first release, instead of starting anything
    #[arg(long)]
    adopt: bool,
    /// Return as soon as it has begun
    #[arg(long)]
    detach: bool,
    /// A name to show beside the login name
    #[arg(long, value_name = "NAME", env = "PILOTHOUSE_BY")]
    by: Option<String>,
}

/// `down [SERVICE…]`
#[derive(clap::Args)]
pub(super) struct DownArgs {
    /// Only these services
    services: Vec<String>,
    /// Take nothing down: what was adopted may be stopped and removed from now on, when nothing needs it
    #[arg(long, requires = "services")]
    adopted: bool,
    /// In production: the name of the service (of the fleet, without SERVICE), instead of typing it when asked
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
    /// Longest wait until everything is gone
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = super::verbs::duration)]
    timeout: Duration,
    /// A name to show beside the login name
    #[arg(long, value_name = "NAME", env = "PILOTHOUSE_BY")]
    by: Option<String>,
}

pub(super) async fn up(file: Option<&Path>, a: &UpArgs) -> color_eyre::Result<Exit> {
    let fleet = match Fleet::connect(file).await {
        Ok(f) => f,
        Err(exit) => return Ok(exit),
    };
    let mut request = fleet.request(&a.services, a.by.as_deref());
    request.adopt = a.adopt;
    let reply = match fleet.client.up(&request).await {
        Ok(r) => r,
        Err(e) => return Ok(failed(&e)),
    };
    complain(&format!("{}\n", reply.message));
    if a.detach {
        return Ok(Exit::Done);
    }
    for rollout in reply.rollouts {
        // A rollout's id is its service's name and a number.
        let Some((service, _)) = rollout.as_str().rsplit_once('-') else { continue };
        let following = Following {
            next: None,
            service,
            rollout: rollout.clone(),
            output: Output::Text,
            timeout: None,
            abort_wanted: false,
            after: 0,
        };
        let exit = follow(&fleet.client, following).await?;
        if exit != Exit::Done {
            return Ok(exit);
        }
    }
    Ok(Exit::Done)
}

pub(super) async fn down(file: Option<&Path>, a: &DownArgs) -> color_eyre::Result<Exit> {
    let fleet = match Fleet::connect(file).await {
        Ok(f) => f,
        Err(exit) => return Ok(exit),
    };
    if fleet.loaded.fleet.production && !confirmed(&fleet, a)? {
        return Ok(Exit::Usage);
    }
    let mut request = fleet.request(&a.services, a.by.as_deref());
    request.adopt = a.adopted;
    match fleet.client.down(&request).await {
        Ok(reply) => complain(&format!("{}\n", reply.message)),
        Err(e) => return Ok(failed(&e)),
    }
    if a.adopted {
        return Ok(Exit::Done);
    }
    let deadline = Instant::now() + a.timeout;
    loop {
        let snapshot = match fleet.client.snapshot().await {
            Ok(s) => s,
            Err(e) => return Ok(failed(&e)),
        };
        let ours = |service: &str| a.services.is_empty() || a.services.iter().any(|s| s == service);
        let left: Vec<_> = snapshot.instances.iter().filter(|i| ours(i.service.as_str())).collect();
        if left.is_empty() {
            say("nothing is left\n")?;
            return Ok(Exit::Done);
        }
        if Instant::now() > deadline {
            complain(&format!("pilothouse: {} instances are still there; it goes on\n", left.len()));
            return Ok(Exit::Waiting);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// In production, taking a service down asks for its name.
fn confirmed(fleet: &Fleet, a: &DownArgs) -> color_eyre::Result<bool> {
    let wanted = match a.services.as_slice() {
        [one] => one.clone(),
        _ => fleet.loaded.fleet.name.to_string(),
    };
    let given = match &a.confirm {
        Some(given) => given.clone(),
        None if std::io::stdin().is_terminal() => {
            let what = if a.adopted { "lets what was adopted be stopped: " } else { "takes down " };
            complain(&format!(
                "This {what}{wanted} in {}. Type its name to go on: ",
                fleet.loaded.fleet.environment
            ));
            let mut line = String::new();
            std::io::stdin().read_line(&mut line)?;
            line.trim().to_owned()
        }
        None => String::new(),
    };
    if given == wanted {
        return Ok(true);
    }
    complain(&format!("pilothouse: nothing was done; to go on with {wanted}, use --confirm {wanted}\n"));
    Ok(false)
}
