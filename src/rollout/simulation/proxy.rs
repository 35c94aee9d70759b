//! What a simulated proxy does with what it is told, and what it says of itself.

use super::*;

/// A change of endpoints makes a new worker and leaves the old one with what it had; weights are changed everywhere.
pub(super) fn write(proxy: &mut SimProxy, routes: &[Route]) {
    let new: BTreeMap<ServiceName, Route> = routes.iter().map(|r| (r.service.clone(), r.clone())).collect();
    let shape = |m: &BTreeMap<ServiceName, Route>| -> Vec<_> {
        m.values().map(|r| (r.stable, r.slots.a.endpoints.clone(), r.slots.b.endpoints.clone())).collect()
    };
    if proxy.workers.first().map(shape) != Some(shape(&new)) {
        proxy.workers.insert(0, new.clone());
        proxy.workers.truncate(3);
    }
    for worker in &mut proxy.workers {
        for (name, route) in worker {
            if let Some(new) = new.get(name) {
                for slot in Slot::BOTH {
                    route.slots.get_mut(slot).weight = new.slots.get(slot).weight;
                }
                route.rules.clone_from(&new.rules);
            }
        }
    }
    if let Some(first) = proxy.workers.first_mut() {
        *first = new;
    }
}

pub(super) fn read_back(proxy: &SimProxy) -> BTreeMap<ServiceName, RouteReadback> {
    let mut out: BTreeMap<ServiceName, RouteReadback> = BTreeMap::new();
    for (n, worker) in proxy.workers.iter().enumerate() {
        for (name, route) in worker {
            let slot = |s: Slot| SlotReadback {
                weight: route.slots.get(s).weight,
                endpoints: route
                    .slots
                    .get(s)
                    .endpoints
                    .iter()
                    .map(|e| EndpointReadback {
                        instance: e.instance.clone(),
                        addr: e.addr,
                        state: e.state,
                        up: Some(true),
                        in_flight: 0,
                    })
                    .collect(),
            };
            let slots = Slots { a: slot(Slot::A), b: slot(Slot::B) };
            let worker = WorkerRoute {
                worker: n.to_string(),
                current: n == 0,
                stable: route.stable,
                slots,
                rules: route.rules.clone(),
                sticky: route.sticky,
            };
            out.entry(name.clone()).or_default().workers.push(worker);
        }
    }
    out.retain(|_, r| r.workers.iter().any(|w| w.current));
    out
}
