//! A version made exact, once, before anything is done: one artifact, the same on every host.

use std::collections::BTreeMap;

use futures_util::future::{join, join_all};

use super::hands::Hands;
use super::secrets::Identity;
use crate::api::{ApiError, ErrorCode};
use crate::engine::EngineError;
use crate::fleet::env_file;
use crate::fleet::model::{Fleet, Run, Service};
use crate::fleet::names::{HostName, ServiceName, Version};
use crate::proxy::ProxyError;
use crate::rollout::plan::plan;
use crate::rollout::state::{Revision, State};
use crate::text::Safe;

/// Refuses what another controller holds, before anything is journalled: waiting for it would never end.
pub(super) async fn not_held(
    hands: &Hands,
    identity: &Identity,
    fleet: &Fleet,
    declared: &Service,
) -> Result<(), ApiError> {
    let held = |what: String| ApiError {
        code: ErrorCode::Foreign,
        message: Safe::new(&what),
        hint: Some(Safe::new(&format!(
            "use that controller, or give this fleet another name; if it is gone for good, remove its claim \
             (in docker the volume pilothouse-owner-{})",
            fleet.name
        ))),
    };
    let hosts = declared.placement.keys().filter_map(|h| fleet.hosts.get(h)).filter(|h| !h.out);
    let claims = join_all(hosts.map(|host| async {
        (&host.name, hands.engine(host).claim(&fleet.name, &identity.owner, false).await)
    }))
    .await;
    for (host, claim) in claims {
        match claim {
            Ok(owner) if owner != identity.owner => {
                return Err(held(format!("host {host} is held by the controller {owner}")));
            }
            Err(EngineError::Foreign(why)) => return Err(held(format!("host {host}: {why}"))),
            // What cannot be asked is not held for sure; what follows says why it cannot be asked.
            Ok(_) | Err(_) => {}
        }
    }
    for proxy in declared.proxies.iter().filter_map(|p| fleet.proxies.get(p)) {
        if let Err(ProxyError::Foreign(why)) =
            hands.proxy(proxy).prepare(std::slice::from_ref(&declared.name)).await
        {
            return Err(held(why.to_string()));
        }
    }
    Ok(())
}

/// Refuses a release whose plan asks something of a proxy that it cannot do as it is set up now: found out in
/// mid-rollout, it would end in an abort. A proxy that cannot be asked keeps nobody from planning.
///
/// # Errors
/// With what the proxy lacks, and what to do about it.
pub async fn fits(hands: &Hands, state: &State, fleet: &Fleet, declared: &Service) -> Result<(), ApiError> {
    let has_stable = state.services.get(&declared.name).is_some_and(|s| s.stable.is_some());
    let plan = plan(declared, has_stable);
    for proxy in declared.proxies.iter().filter_map(|p| fleet.proxies.get(p)) {
        let can = hands.proxy(proxy).can(&declared.name, &plan.rules, plan.sticky).await;
        if let Err(ProxyError::Refused(why)) = can {
            return Err(ApiError {
                code: ErrorCode::Refused,
                message: why,
                hint: Some("nothing was begun: change that and reload the proxy, then try again".into()),
            });
        }
    }
    Ok(())
}

/// A service as the fleet file declares it.
///
/// # Errors
/// When it does not.
pub fn declared<'a>(fleet: &'a Fleet, service: &ServiceName) -> Result<&'a Service, ApiError> {
    fleet.services.get(service).ok_or_else(|| {
        let known: Vec<String> = fleet.services.keys().map(ToString::to_string).collect();
        let hint = format!("services in the file: {}", known.join(", "));
        error(ErrorCode::NotFound, format!("the fleet file has no service {service}"), &hint)
    })
}

/// The revision that `version` of `service` means now.
///
/// # Errors
/// When the file has no such service, no host or registry has the version, hosts disagree on what it is, or the env
/// file cannot be read.
pub async fn revision(
    hands: &Hands,
    identity: &Identity,
    fleet: &Fleet,
    service: &ServiceName,
    version: &Version,
) -> Result<Revision, ApiError> {
    let declared = declared(fleet, service)?;
    // Side by side: whoever asked waits for one deadline, not for two.
    let (held, digest) =
        join(not_held(hands, identity, fleet, declared), artifact(hands, fleet, declared, version)).await;
    held?;
    let digest = digest?;
    let env = environment(declared)?;
    identity
        .revision(declared, version, &digest, &env)
        .map_err(|e| error(ErrorCode::BadRequest, e.to_string(), ""))
}

/// The values of a service's env file as it is now.
pub(super) fn environment(declared: &Service) -> Result<BTreeMap<String, String>, ApiError> {
    let Some(path) = &declared.env_file else { return Ok(BTreeMap::new()) };
    env_file::read(path)
        .map_err(|p| error(ErrorCode::BadRequest, p.to_string(), "the values are read at every start"))
}

fn error(code: ErrorCode, message: String, hint: &str) -> ApiError {
    ApiError { code, message: Safe::new(&message), hint: Some(Safe::new(hint)).filter(|h| !h.is_empty()) }
}

/// The digest that `version` means on every host of the service. Nothing is changed anywhere.
///
/// # Errors
/// When no host or registry has it, hosts disagree on what it is, or one cannot be asked.
pub async fn artifact(
    hands: &Hands,
    fleet: &Fleet,
    declared: &Service,
    version: &Version,
) -> Result<String, ApiError> {
    let hosts: Vec<_> =
        declared.placement.keys().filter_map(|h| fleet.hosts.get(h)).filter(|h| !h.out).collect();
    if hosts.is_empty() {
        let message = format!("every host of {} is out", declared.name);
        return Err(error(
            ErrorCode::Refused,
            message,
            "remove out = true from a host, or place it elsewhere",
        ));
    }
    let resolve = hosts
        .iter()
        .map(|host| async { (host.name.clone(), hands.engine(host).resolve(&declared.run, version).await) });
    let answers = join_all(resolve).await;
    let mut found: BTreeMap<String, Vec<HostName>> = BTreeMap::new();
    let mut failed = Vec::new();
    for (host, answer) in answers {
        match answer {
            Ok(Some(digest)) => found.entry(digest).or_default().push(host),
            Ok(None) => {}
            Err(e) => failed.push(format!("{host}: {e}")),
        }
    }
    let what = match &declared.run {
        Run::Image { repository, .. } => format!("{repository}:{version}"),
        Run::Command { argv } => argv.first().cloned().unwrap_or_default(),
    };
    // Unknown is not absent: what cannot be asked may have something else under the same name.
    if let Some(first) = failed.first() {
        let message = format!("{what} cannot be resolved on every host: {first}");
        return Err(error(
            ErrorCode::Unavailable,
            message,
            "try again when the host answers, or set out = true for it",
        ));
    }
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some((digest, _)), None) => Ok(digest),
        (None, _) => {
            let message = format!("no host has {what}, and no registry said what it is");
            Err(error(ErrorCode::NotFound, message, "check the version, or load the image on the hosts"))
        }
        (Some((one, on_one)), Some((other, on_other))) => {
            let names = |h: &[HostName]| h.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let message = format!(
                "{what} is not the same everywhere: {one} on {}, {other} on {}",
                names(&on_one),
                names(&on_other)
            );
            Err(error(ErrorCode::Refused, message, "give every host the same image, then deploy again"))
        }
    }
}
