//! What an operator should know of how a proxy is set up: `pilothouse doctor` asks, nothing is changed.

use super::{Extras, Proxy, ProxyError};
use crate::fleet::model::{Choose, Rule, Service, Strategy};
use crate::text::Safe;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// Whether a release does not work for it; else it works, and would be safer or tell more without it.
    pub fails: bool,
    /// What is so.
    pub what: Safe,
    /// What to do, with the exact line where it is one; empty where `what` says it.
    pub cure: Safe,
}

impl Advice {
    /// No release works with this.
    #[must_use]
    pub fn fails(what: &str) -> Self {
        Self { fails: true, what: Safe::new(what), cure: Safe::default() }
    }

    /// It works, and could be better.
    #[must_use]
    pub fn better(what: &str, cure: &str) -> Self {
        Self { fails: false, what: Safe::new(what), cure: Safe::new(cure) }
    }
}

/// The rules that releases of a service may ask for.
fn rules(strategy: &Strategy) -> Vec<Rule> {
    match strategy {
        Strategy::BlueGreen { preview: rule, .. } | Strategy::Canary { tester: rule, .. } => {
            rule.iter().cloned().collect()
        }
        Strategy::Ab { choose: Choose::Rule(rule), .. } => vec![rule.clone()],
        Strategy::Ab { choose: Choose::Share(_), .. }
        | Strategy::InPlace { .. }
        | Strategy::Rolling { .. } => Vec::new(),
    }
}

/// What every proxy is asked: whether it answers, and whether it can do what the plans of `services` need.
pub(super) async fn asked<P: Proxy + ?Sized>(proxy: &P, services: &[&Service]) -> Vec<Advice> {
    // What does not fit cannot be in order either: the cause comes first, and alone.
    let there = async {
        proxy.fits().await?;
        proxy.read_back().await
    };
    if let Err(e) = there.await {
        return vec![Advice::fails(&e.to_string())];
    }
    let mut out = Vec::new();
    for service in services {
        let sticky = Extras::of(&service.strategy).sticky;
        match proxy.can(&service.name, &rules(&service.strategy), sticky).await {
            Err(ProxyError::Refused(why) | ProxyError::Foreign(why)) => out.push(Advice::fails(why.as_str())),
            Err(ProxyError::Unknown(why)) => out.push(Advice::fails(why.as_str())),
            Ok(()) => {}
        }
    }
    if let Some(why) = proxy.warning() {
        out.push(Advice::better(why.as_str(), ""));
    }
    // One cause is often every service's.
    out.dedup();
    out
}
