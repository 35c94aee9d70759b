//! `demo`: the main job, live, on this machine; with `--script`, without a terminal.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use color_eyre::eyre::{Result, bail, eyre};

use super::follow::{Following, follow};
use super::out::{Output, complain, say};
use super::{Exit, special};
use crate::api::{FleetRequest, Role, RolloutStatus, ServiceView, Verb, VerbReply, VerbRequest};
use crate::client::Client;
use crate::controller::lock::Place;
use crate::controller::start::connect_or_start;
use crate::demo::load::Load;
use crate::demo::stage::{FAILING, FIRST, GOOD, PREVIEW, Parts, Play, SERVICE, SICK, Stage};
use crate::fleet::Loaded;
use crate::fleet::names::Bp;
use crate::text::Safe;
use crate::tui;

/// Requests a second that the demo's load sends.
const RATE: u32 = 300;
/// Keep-alive connections it uses.
const CONNECTIONS: u32 = 12;
/// How long the traffic is watched at 25 % before the story aborts.
const LOOK: Duration = Duration::from_secs(3);

/// `demo`
#[derive(clap::Args)]
pub(super) struct Args {
    /// Play a story without a terminal, and end as its rollout does
    #[arg(long, value_enum, value_name = "STORY")]
    script: Option<Story>,
    /// What to run on
    #[arg(long, value_enum, default_value_t)]
    engine: Parts,
    #[command(flatten)]
    look: super::cockpit::Look,
}

/// The stories.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Story {
    /// 1.0.0 to 1.1.0 through 5, 25, 50 and 100 %: exit 0
    Canary,
    /// The same, aborted by the operator at 25 %: exit 3
    Abort,
    /// One instance, replaced where it stands: what that costs, shown and measured: exit 0
    InPlace,
    /// Six instances, one after the other: exit 0
    Rolling,
    /// The other colour, looked at before anybody else sees it, then switched, then back at once: exit 0
    BlueGreen,
    /// A fifth of the visitors for ten seconds, compared, then promoted: exit 0
    Ab,
    /// A version that fails a fifth of its requests at 5 %: it is found out and taken back by itself: exit 3
    BadCandidate,
}

impl Story {
    fn play(self) -> Play {
        match self {
            Self::Canary | Self::Abort | Self::BadCandidate => Play::Canary,
            Self::InPlace => Play::InPlace,
            Self::Rolling => Play::Rolling,
            Self::BlueGreen => Play::BlueGreen,
            Self::Ab => Play::Ab,
        }
    }
}

pub(super) fn run(a: &Args) -> Result<Exit> {
    let on_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if a.script.is_none() && !on_terminal {
        complain("pilothouse: not a terminal; play a story with: pilothouse demo --script canary\n");
        return Ok(Exit::Usage);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        tokio::select! {
            played = play(a) => played,
            _ = interrupted() => {
                complain("pilothouse: interrupted; everything that was started is taken down\n");
                Ok(Exit::Failed)
            }
        }
    })
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
}

async fn play(a: &Args) -> Result<Exit> {
    complain("Setting up a fleet on this machine …\n");
    let mut stage = Stage::set(a.engine, a.script.map_or(Play::Screen, Story::play)).await?;
    // Whatever happens to this process, the controller takes down what it started.
    let leave_with = Some(std::process::id());
    let client = connect_or_start(&stage.loaded.fleet, &stage.loaded.file, leave_with).await?;
    let result = async {
        stage.start_haproxy().await?;
        bring_up(&client, &stage.loaded).await?;
        let load = Load::start(stage.listen, CONNECTIONS, RATE);
        match a.script {
            Some(story) => tell(&client, &stage, &load, story).await,
            None => show(a, &stage, load).await,
        }
    }
    .await;
    complain("Taking the fleet down …\n");
    take_down(&client, &stage.loaded).await;
    result
}

fn request(loaded: &Loaded) -> FleetRequest {
    FleetRequest {
        adopt: false,
        fleet_file: loaded.file.to_string_lossy().into_owned(),
        fleet_hash: loaded.fleet.hash.clone(),
        services: Vec::new(),
        by: Some("demo".into()),
    }
}

fn verb(loaded: &Loaded, verb: Verb) -> VerbRequest {
    VerbRequest {
        verb,
        decision: None,
        fleet_file: Some(loaded.file.to_string_lossy().into_owned()),
        fleet_hash: Some(loaded.fleet.hash.clone()),
        by: Some("demo".into()),
    }
}

async fn bring_up(client: &Client, loaded: &Loaded) -> Result<()> {
    client.up(&request(loaded)).await?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let service = service(client).await?;
        match service.rollout.as_ref().map(|r| (r.status, r.reason.clone())) {
            Some((RolloutStatus::Done, _)) => return Ok(()),
            Some((status, reason)) if status.ended() => bail!("the first release did not work: {reason}"),
            _ if Instant::now() > deadline => bail!("the first release takes too long"),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn service(client: &Client) -> Result<ServiceView> {
    let services = client.snapshot().await?.services;
    services
        .into_iter()
        .find(|s| s.name.as_str() == SERVICE)
        .ok_or_else(|| eyre!("the demo's service is gone"))
}

/// Best effort: the controller does the same when this process has ended.
async fn take_down(client: &Client, loaded: &Loaded) {
    if client.down(&request(loaded)).await.is_ok() {
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            match client.snapshot().await {
                Ok(s) if !s.instances.is_empty() => tokio::time::sleep(Duration::from_millis(50)).await,
                _ => break,
            }
        }
    }
    let _ = client.stop().await;
    // Its directory goes with the stage: it must have let go of it first.
    let place = Place::of(&loaded.fleet);
    let deadline = Instant::now() + Duration::from_secs(5);
    while place.socket.exists() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The cockpit, in its own thread: it makes its own runtime.
async fn show(a: &Args, stage: &Stage, load: Load) -> Result<Exit> {
    let mut options = a.look.options(Some(&stage.loaded.file));
    let deploy = options.settings.keys.key(tui::keys::Action::Deploy);
    let hint = [
        format!("{FIRST} serves {SERVICE} here, under {RATE} requests a second on {}.", stage.listen),
        format!(
            "Press {deploy} to deploy: {GOOD} works, {FAILING} fails under traffic, {SICK} is never healthy."
        ),
    ];
    options.demo_hint = Some(hint.iter().map(|l| Safe::new(l)).collect());
    let socket = Place::of(&stage.loaded.fleet).socket;
    let shown = tokio::task::spawn_blocking(move || tui::run(socket, options)).await?;
    let count = load.count();
    say(&format!("The load sent {} requests, {} failed.\n", count.sent, count.failed))?;
    shown.map(|_| Exit::Done)
}

async fn tell(client: &Client, stage: &Stage, load: &Load, story: Story) -> Result<Exit> {
    let version = if story == Story::BadCandidate { FAILING } else { GOOD };
    say(&format!("{FIRST} serves {SERVICE} on {}; now {version} comes, under load.\n", stage.listen))?;
    let deploy = verb(&stage.loaded, Verb::Deploy { version: version.into() });
    let reply = client.verb(SERVICE, &deploy).await?;
    let following = |reply: &VerbReply| {
        let rollout = reply.rollouts.first().cloned().ok_or_else(|| eyre!("no rollout has begun"))?;
        Ok::<_, color_eyre::Report>(Following {
            next: None,
            service: SERVICE,
            rollout,
            output: Output::Text,
            timeout: Some(Duration::from_secs(120)),
            abort_wanted: false,
            after: 0,
        })
    };
    let meanwhile = async {
        match story {
            Story::Canary => shares(client, load).await,
            Story::Abort => abort_at(client, stage, load).await,
            Story::BlueGreen => preview(client, stage).await,
            Story::Ab => decide(client, stage).await,
            Story::InPlace | Story::Rolling | Story::BadCandidate => Ok(()),
        }
    };
    let (exit, told) = tokio::join!(follow(client, following(&reply)?), meanwhile);
    told?;
    let exit = exit?;
    if story == Story::BlueGreen && exit == Exit::Done {
        back(client, stage).await?;
    }
    // Answers that are under way belong to the story.
    tokio::time::sleep(Duration::from_millis(300)).await;
    if story == Story::InPlace {
        downtime(load)?;
    }
    let count = load.count();
    let by: Vec<String> = count.by_version.iter().map(|(v, n)| format!("{n} by {v}")).collect();
    for e in &count.errors {
        say(&format!("failed: {}\n", Safe::new(e)))?;
    }
    say(&format!("requests: {} sent, {} failed; answered {}\n", count.sent, count.failed, by.join(", ")))?;
    // In place, and before a bad version is found out, somebody fails; everywhere else nobody may.
    if count.failed > 0 && !matches!(story, Story::InPlace | Story::BadCandidate) {
        return Ok(Exit::Failed);
    }
    Ok(exit)
}

/// Waits until the service is as `there` says.
async fn until(client: &Client, what: &str, there: impl Fn(&ServiceView) -> bool) -> Result<ServiceView> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let s = service(client).await?;
        if there(&s) {
            return Ok(s);
        }
        if Instant::now() > deadline || s.rollout.as_ref().is_some_and(|r| r.status.ended()) {
            bail!("the rollout never came to {what}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether the phase called `name` has begun, with nothing left to wait for but its gates.
fn settled(s: &ServiceView, name: &str) -> bool {
    s.rollout.as_ref().is_some_and(|r| {
        r.phases.get(r.phase).is_some_and(|p| p.name.as_str() == name) && r.gate_left_ms.is_some()
    })
}

/// The new colour is looked at before anybody else sees it.
async fn preview(client: &Client, stage: &Stage) -> Result<()> {
    until(client, "its preview", |s| settled(s, "preview")).await?;
    let http = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("http://{}/", stage.listen);
    let with = http.get(&url).header(PREVIEW.0, PREVIEW.1).send().await?.text().await?;
    let without = http.get(&url).send().await?.text().await?;
    say(&format!(
        "         preview: with '{}: {}' {} answers, without it {}\n",
        PREVIEW.0,
        PREVIEW.1,
        Safe::new(with.trim()),
        Safe::new(without.trim())
    ))
}

/// The old colour is still warm: going back is one change of weight.
async fn back(client: &Client, stage: &Stage) -> Result<()> {
    let commanded = Instant::now();
    client.verb(SERVICE, &verb(&stage.loaded, Verb::Rollback { to: None, host: None })).await?;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let s = service(client).await?;
        let old = s.revisions.iter().find(|v| v.revision.version.as_str() == FIRST);
        if old.is_some_and(|v| v.weight == Bp::FULL.get() && v.actual_weight == Some(Bp::FULL.get())) {
            break;
        }
        if Instant::now() > deadline {
            bail!("going back takes too long");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    say(&format!(
        "rollback: {FIRST} has all of the traffic again {:.1} ms after the command, read back\n",
        commanded.elapsed().as_secs_f64() * 1000.0
    ))
}

/// The comparison is over when somebody says so.
async fn decide(client: &Client, stage: &Stage) -> Result<()> {
    until(client, "its comparison", |s| settled(s, "compare")).await?;
    let s = until(client, "the end of its comparison", |s| {
        s.rollout.as_ref().is_some_and(|r| r.gate_left_ms.is_none() && !r.waiting.is_empty())
    })
    .await?;
    for line in s.rollout.iter().flat_map(special::comparison) {
        say(&format!("         {line}\n"))?;
    }
    say("         the comparison is over; the operator promotes\n")?;
    client.verb(SERVICE, &verb(&stage.loaded, Verb::Promote { full: false })).await?;
    Ok(())
}

/// The downtime as the load saw it; what the controller measured was said when the rollout ended.
fn downtime(load: &Load) -> Result<()> {
    let gap = load.gap().map_or(0.0, |gap| gap.as_secs_f64());
    say(&format!("downtime as the load saw it: no answer for {gap:.2} s\n"))
}

/// What the load measures in each phase, against what was set.
async fn shares(client: &Client, load: &Load) -> Result<()> {
    let mut last: Option<(u64, u64, Bp)> = None;
    loop {
        let s = service(client).await?;
        let Some(r) = s.rollout.as_ref().filter(|r| r.to.as_str() == GOOD) else { return Ok(()) };
        let candidate = s.revisions.iter().find(|v| v.revision.version.as_str() == GOOD);
        let set = candidate.map_or(Bp::ZERO, |c| Bp::saturating(u64::from(c.weight)));
        let in_force = candidate.is_some_and(|c| c.actual_weight == Some(c.weight) && c.weight > 0);
        let count = load.count();
        let (sent, ours) = (count.sent, count.by_version.get(GOOD).copied().unwrap_or(0));
        if last.is_none_or(|(.., weight)| weight != set) {
            if let Some((sent_then, ours_then, weight)) = last.take()
                && sent - sent_then >= 200
            {
                let measured = Bp::ratio(ours - ours_then, sent - sent_then);
                say(&format!(
                    "         {GOOD} set to {weight}: {measured} measured over {} requests\n",
                    sent - sent_then
                ))?;
            }
            last = in_force.then_some((sent, ours, set));
        }
        if r.status.ended() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits for 25 %, looks for a while, aborts, and says how long the candidate still got requests.
async fn abort_at(client: &Client, stage: &Stage, load: &Load) -> Result<()> {
    let quarter = Bp::percent(25).get();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let s = service(client).await?;
        let there = s
            .revisions
            .iter()
            .any(|v| v.role == Role::Candidate && v.weight == quarter && v.actual_weight == Some(quarter));
        if there {
            break;
        }
        if Instant::now() > deadline || s.rollout.is_some_and(|r| r.status.ended()) {
            bail!("the rollout never came to 25 %");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(LOOK).await;
    say("         25 % reached; the operator aborts\n")?;
    let commanded = Instant::now();
    client.verb(SERVICE, &verb(&stage.loaded, Verb::Abort)).await?;
    let accepted = commanded.elapsed();
    let deadline = Instant::now() + Duration::from_secs(60);
    let ended = loop {
        let s = service(client).await?;
        match s.rollout {
            Some(r) if r.status.ended() => break s.stable,
            _ if Instant::now() > deadline => bail!("the abort takes too long"),
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let last = match load.last(GOOD) {
        Some(at) if at > commanded => {
            format!("{:.1} ms after the command", at.duration_since(commanded).as_secs_f64() * 1000.0)
        }
        Some(at) => {
            format!(
                "{:.1} ms before the command, none after it",
                commanded.duration_since(at).as_secs_f64() * 1000.0
            )
        }
        None => "never: it had none".to_owned(),
    };
    let stable = ended.map(|r| r.version.to_string()).unwrap_or_default();
    say(&format!(
        "abort: journalled and answered after {:.1} ms; the last answer of {GOOD} ended {last}; {stable} serves 100 %\n",
        accepted.as_secs_f64() * 1000.0
    ))
}
