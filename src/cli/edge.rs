//! `pilothouse edge`: the embedded proxy in the foreground. The controller starts it by itself.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Exit;
use crate::fleet::names::ProxyName;
use crate::proxy::edge::{Options, serve};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Directory for its socket, lock, log and last routes
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Address to serve on
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Name of the proxy in the fleet file
    #[arg(long)]
    name: ProxyName,
    /// The only controller that may set routes
    #[arg(long, default_value = "")]
    owner: String,
    /// Leave the session it was started in, so that nothing there ends it
    #[arg(long, hide = true)]
    own_session: bool,
}

pub(super) fn run(args: &Args) -> color_eyre::Result<Exit> {
    if args.own_session {
        rustix::process::setsid()?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let options = Options {
        dir: args.dir.clone(),
        listen: args.listen,
        name: args.name.clone(),
        owner: args.owner.clone(),
    };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(options))?;
    Ok(Exit::Done)
}
