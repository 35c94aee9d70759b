//! `pilothouse sample-app`: what the demo and the tests release. Flags win over the environment (`PORT`, `HOST`,
//! `PILOTHOUSE_VERSION`, `PILOTHOUSE_INSTANCE`, `SAMPLE_*`), which is how a container or the process engine says it.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::time::Duration;

use color_eyre::eyre::{Result, eyre};

use super::Exit;
use crate::demo::sample_app::{Settings, run as serve};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Port to listen on [env PORT]
    #[arg(long)]
    port: Option<u16>,
    /// Address to listen on [env HOST; default 127.0.0.1]
    #[arg(long)]
    address: Option<IpAddr>,
    /// The version it answers with [env PILOTHOUSE_VERSION]
    #[arg(long)]
    version: Option<String>,
    /// Delay of each answer [env SAMPLE_LATENCY_MS; default 3]
    #[arg(long, value_name = "MS")]
    latency_ms: Option<u64>,
    /// Per cent of requests answered 500 [env SAMPLE_FAIL_PERCENT]
    #[arg(long, value_name = "P")]
    fail_percent: Option<u64>,
    /// Start failing only after this many requests [env SAMPLE_FAIL_AFTER]
    #[arg(long, value_name = "N")]
    fail_after: Option<u64>,
    /// /health always answers 503 [env SAMPLE_NEVER_HEALTHY=1]
    #[arg(long)]
    never_healthy: bool,
    /// Listen this much later [env SAMPLE_START_DELAY_MS]
    #[arg(long, value_name = "MS")]
    start_delay_ms: Option<u64>,
    /// Exit with code 1 at this request [env SAMPLE_CRASH_AFTER]
    #[arg(long, value_name = "N")]
    crash_after: Option<u64>,
    /// Added to the delay [env SAMPLE_SLOW_MS]
    #[arg(long, value_name = "MS")]
    slow_ms: Option<u64>,
    /// Still answer for this long after SIGTERM, closing connections [env SAMPLE_LINGER_MS; default 300]
    #[arg(long, value_name = "MS")]
    linger_ms: Option<u64>,
    /// Behave as the version's suffix says: -failing, -unhealthy, -crashing, -slow, -slowstart
    /// [env SAMPLE_BEHAVIOUR_BY_VERSION=1]
    #[arg(long)]
    behaviour_by_version: bool,
}

pub(super) fn run(args: &Args) -> Result<Exit> {
    let mut settings = Settings::well_behaved("unknown", 8080);
    settings.address =
        args.address.map_or_else(|| env("HOST"), |a| Ok(Some(a)))?.unwrap_or(Ipv4Addr::LOCALHOST.into());
    settings.port = or_env(args.port, "PORT")?.unwrap_or(settings.port);
    settings.version = match &args.version {
        Some(version) => version.clone(),
        None => env("PILOTHOUSE_VERSION")?.unwrap_or(settings.version),
    };
    settings.instance = env("PILOTHOUSE_INSTANCE")?.unwrap_or_default();
    if args.behaviour_by_version || flag("SAMPLE_BEHAVIOUR_BY_VERSION")? {
        settings = settings.by_version();
    }
    let millis = |flag, name| Ok::<_, color_eyre::Report>(or_env(flag, name)?.map(Duration::from_millis));
    settings.latency = millis(args.latency_ms, "SAMPLE_LATENCY_MS")?.unwrap_or(settings.latency);
    settings.fail_percent =
        or_env(args.fail_percent, "SAMPLE_FAIL_PERCENT")?.unwrap_or(settings.fail_percent);
    settings.fail_after = or_env(args.fail_after, "SAMPLE_FAIL_AFTER")?.unwrap_or(settings.fail_after);
    settings.never_healthy |= args.never_healthy || flag("SAMPLE_NEVER_HEALTHY")?;
    settings.start_delay =
        millis(args.start_delay_ms, "SAMPLE_START_DELAY_MS")?.unwrap_or(settings.start_delay);
    settings.crash_after = or_env(args.crash_after, "SAMPLE_CRASH_AFTER")?.unwrap_or(settings.crash_after);
    settings.slow = millis(args.slow_ms, "SAMPLE_SLOW_MS")?.unwrap_or(settings.slow);
    settings.linger = millis(args.linger_ms, "SAMPLE_LINGER_MS")?.unwrap_or(settings.linger);

    // Many of these run side by side: one thread each is enough.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(settings))?;
    Ok(Exit::Done)
}

fn or_env<T: FromStr>(flag: Option<T>, name: &str) -> Result<Option<T>> {
    flag.map_or_else(|| env(name), |value| Ok(Some(value)))
}

fn env<T: FromStr>(name: &str) -> Result<Option<T>> {
    match std::env::var(name) {
        Err(_) => Ok(None),
        Ok(text) if text.is_empty() => Ok(None),
        Ok(text) => match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(eyre!("{name}={text:?} is not a value it can have")),
        },
    }
}

fn flag(name: &str) -> Result<bool> {
    Ok(env::<String>(name)?.is_some_and(|v| v != "0" && v != "false"))
}
