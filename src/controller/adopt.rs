//! Taking over what runs already, as the first release of a service: containers of its image that nobody manages, or
//! instances that a controller made whose journal is lost. Nothing is started, stopped or changed.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;

use super::hands::Hands;
use super::resolve;
use super::secrets::{Identity, revision_id};
use crate::api::{ApiError, ErrorCode};
use crate::engine::{Adoptable, Wanted};
use crate::fleet::model::{Address, Fleet, Host, Run, Service};
use crate::fleet::names::{HostName, InstanceId, RevisionId, Version};
use crate::rollout::decide::Taken;
use crate::rollout::state::Revision;
use crate::rollout::world::{ObservedInstance, RunState};
use crate::text::Safe;

/// What was found on one host.
struct Found {
    host: HostName,
    ours: Vec<ObservedInstance>,
    foreign: Vec<Adoptable>,
}

fn refuse<T>(message: String, hint: &str) -> Result<T, ApiError> {
    Err(ApiError { code: ErrorCode::Refused, message: Safe::new(&message), hint: Some(Safe::new(hint)) })
}

/// The revision that runs of a service, and its instances.
///
/// # Errors
/// When nothing runs, more than one version does and the fleet file does not say which one serves, more instances run on
/// a host than are declared, or a host cannot be asked.
pub async fn running(
    hands: &Hands,
    identity: &Identity,
    fleet: &Fleet,
    declared: &Service,
) -> Result<(Revision, Vec<Taken>), ApiError> {
    resolve::not_held(hands, identity, fleet, declared).await?;
    let hosts = declared.placement.keys().filter_map(|h| fleet.hosts.get(h)).filter(|h| !h.out);
    let looks = join_all(hosts.map(|host| look(hands, fleet, declared, host))).await;
    let mut found = looks.into_iter().collect::<Result<Vec<Found>, ApiError>>()?;
    // Two hosts of a file may be one engine: what was found on the first is not there twice.
    let (mut instances, mut containers) = (BTreeSet::new(), BTreeSet::new());
    for f in &mut found {
        f.ours.retain(|i| instances.insert(i.id.clone()));
        f.foreign.retain(|a| a.endpoint.is_none() || containers.insert(a.container.clone()));
    }
    let env_hash = identity.env_hash(&resolve::environment(declared)?);
    let (id, version, digest, taken) = if found.iter().any(|f| !f.ours.is_empty()) {
        rebuilt(declared, &found)?
    } else {
        foreign(declared, &found)?
    };
    for (host, wanted) in &declared.placement {
        let here = taken.iter().filter(|t| t.host == *host).count();
        if here > *wanted as usize {
            return refuse(
                format!(
                    "{here} instances of {} run on {host}, and the fleet file wants {wanted}",
                    declared.name
                ),
                "declare as many as run; afterwards fewer can be declared",
            );
        }
    }
    Ok((Revision { id, version, digest, spec: declared.clone(), env_hash }, taken))
}

async fn look(hands: &Hands, fleet: &Fleet, declared: &Service, host: &Host) -> Result<Found, ApiError> {
    let engine = hands.engine(host);
    let wanted =
        Wanted { run: &declared.run, port: declared.port, reach: declared.address, address: host.address };
    let unanswered = |e: crate::engine::EngineError| ApiError {
        code: ErrorCode::Unavailable,
        message: Safe::new(&format!("what runs on host {} is not known: {e}", host.name)),
        hint: Some("try again when the host answers, or set out = true for it".into()),
    };
    let running = |i: &ObservedInstance| {
        let here =
            declared.address == Address::Container || i.endpoint.is_some_and(|e| e.ip() == host.address);
        i.service == declared.name && i.state == RunState::Running && here
    };
    let mut ours = engine.observe(&fleet.name).await.map_err(unanswered)?;
    ours.retain(running);
    let foreign = engine.adoptable(&wanted).await.map_err(unanswered)?;
    Ok(Found { host: host.name.clone(), ours, foreign })
}

type Chosen = (RevisionId, Version, String, Vec<Taken>);

/// Of several versions that run, the one that the fleet file names; of one, that one.
fn choose<K: Ord>(
    declared: &Service,
    what: BTreeMap<K, (Option<&Version>, Vec<String>)>,
) -> Result<K, ApiError> {
    let named = |v: &Option<&Version>| v.is_some() && *v == declared.version.as_ref();
    let several = what.len() > 1;
    let list: Vec<String> = what
        .values()
        .map(|(version, names)| {
            let version = version.map_or_else(|| "without a tag".to_owned(), ToString::to_string);
            format!("{version} ({})", names.join(", "))
        })
        .collect();
    let mut fitting = what.into_iter().filter(|(_, (v, _))| !several || named(v));
    match (fitting.next(), fitting.next()) {
        (Some((key, _)), None) => Ok(key),
        _ => refuse(
            format!("more than one version of {} runs: {}", declared.name, list.join("; ")),
            &format!("say which one serves: version = \"…\" under [services.{}]", declared.name),
        ),
    }
}

/// What a controller made before, by its labels: the journal of that one is lost.
fn rebuilt(declared: &Service, found: &[Found]) -> Result<Chosen, ApiError> {
    let all = || found.iter().flat_map(|f| f.ours.iter().map(move |i| (&f.host, i)));
    let mut revisions: BTreeMap<&RevisionId, (Option<&Version>, Vec<String>)> = BTreeMap::new();
    for (_, i) in all() {
        revisions.entry(&i.revision).or_insert((Some(&i.version), Vec::new())).1.push(i.id.to_string());
    }
    let chosen = choose(declared, revisions)?;
    let of_it: Vec<_> = all().filter(|(_, i)| i.revision == *chosen).collect();
    let digests: BTreeSet<&String> = of_it.iter().map(|(_, i)| &i.digest).collect();
    let (Some((_, first)), 1) = (of_it.first(), digests.len()) else {
        return refuse(
            format!("instances of revision {chosen} of {} do not run the same artifact", declared.name),
            "take the wrong one down by hand, then try again",
        );
    };
    let taken = of_it.iter().map(|(host, i)| Taken {
        host: (*host).clone(),
        instance: i.id.clone(),
        host_port: port(declared, i.endpoint),
        adopts: i.adopts.clone(),
        serving: i.endpoint,
    });
    Ok((chosen.clone(), first.version.clone(), first.digest.clone(), taken.collect()))
}

fn port(declared: &Service, endpoint: Option<std::net::SocketAddr>) -> Option<u16> {
    endpoint.filter(|_| declared.address == Address::Published).map(|e| e.port())
}

/// Containers of the service's image that nobody manages.
fn foreign(declared: &Service, found: &[Found]) -> Result<Chosen, ApiError> {
    let all = || found.iter().flat_map(|f| f.foreign.iter().map(move |a| (&f.host, a)));
    let mut artifacts: BTreeMap<&String, (Option<&Version>, Vec<String>)> = BTreeMap::new();
    for (host, a) in all().filter(|(_, a)| a.endpoint.is_some()) {
        let entry = artifacts.entry(&a.digest).or_insert((a.version.as_ref(), Vec::new()));
        entry.1.push(format!("{} on {host}", a.name));
    }
    if artifacts.is_empty() {
        let hosts: Vec<&str> = found.iter().map(|f| f.host.as_str()).collect();
        let what = match &declared.run {
            Run::Image { repository, .. } => format!("container of {repository}"),
            Run::Command { .. } => "process that Pilothouse started".to_owned(),
        };
        let shut: Vec<String> = all().map(|(host, a)| format!("{} on {host}", a.name)).collect();
        let hint = if shut.is_empty() {
            format!("to start {} afresh: pilothouse up {}", declared.name, declared.name)
        } else {
            format!("port {} of these cannot be reached from outside: {}", declared.port, shut.join(", "))
        };
        return refuse(format!("nothing to adopt: no {what} runs on {}", hosts.join(", ")), &hint);
    }
    let digest = choose(declared, artifacts)?;
    let of_it: Vec<_> = all().filter(|(_, a)| a.digest == *digest && a.endpoint.is_some()).collect();
    let version = of_it.iter().find_map(|(_, a)| a.version.clone()).or_else(|| declared.version.clone());
    let Some(version) = version else {
        return refuse(
            format!("what runs of {} was made from an image without a tag", declared.name),
            &format!("say which version it is: version = \"…\" under [services.{}]", declared.name),
        );
    };
    // Its own identity: the same version released by Pilothouse has the settings of the fleet file, this one has others.
    let containers = of_it.iter().map(|(_, a)| a.container.as_str());
    let id = revision_id(containers.chain(["adopted", digest])).map_err(|e| ApiError {
        code: ErrorCode::BadRequest,
        message: Safe::new(&e.to_string()),
        hint: None,
    })?;
    let taken = (1..).zip(&of_it).map(|(n, (host, a))| Taken {
        host: (*host).clone(),
        instance: InstanceId::of(&declared.name, &id, n),
        host_port: port(declared, a.endpoint),
        adopts: Some(a.container.clone()),
        serving: None,
    });
    let taken = taken.collect();
    Ok((id, version, digest.clone(), taken))
}
