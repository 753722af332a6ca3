//! What separates the kernel from the plan. Pure; nothing is touched.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Entry, Installed, Network, Owner, Plan, Refusal, Route, Rule, TABLE_MAIN};

/// The number under which the kernel itself installs the networks of its addresses (`RTPROT_KERNEL`).
const RTPROT_KERNEL: u8 = 2;

/// Somebody else's route in the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Foreign {
    pub(crate) destination: Network,
    pub(crate) metric: u32,
    pub(crate) protocol: u8,
}

/// The steps from the kernel's state to the plan, in the order they are to be made: first what must make room, then
/// what is new (routes before the rules that lead to them), then what is stale (rules before their routes), so that a
/// path is never without its route.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Steps {
    /// Ours, in the place of one to be added (same table, destination and metric).
    pub(crate) make_room: Vec<Route>,
    pub(crate) add_routes: Vec<Route>,
    pub(crate) add_rules: Vec<Rule>,
    pub(crate) remove_rules: Vec<Rule>,
    pub(crate) remove_routes: Vec<Route>,
    pub(crate) unchanged: Vec<Entry>,
    pub(crate) refused: Vec<Refusal>,
}

/// Compares the plan with `installed` (only what this owner has) and the `foreign` routes of the main table.
pub(crate) fn diff(owner: Owner, plan: &Plan, installed: &Installed, foreign: &[Foreign]) -> Steps {
    let mut steps = Steps { refused: plan.refused.clone(), ..Steps::default() };
    let mut stale: BTreeMap<_, Vec<&Route>> = BTreeMap::new();
    for route in &installed.routes {
        stale.entry(route.key()).or_default().push(route);
    }
    for route in &plan.routes {
        if let Some(why) = objection(owner, route, foreign) {
            steps.refused.push(Refusal::new(route, why));
            continue;
        }
        // More than one only where somebody appended to ours (IPv6 allows that).
        let rivals = stale.entry(route.key()).or_default();
        if let Some(position) = rivals.iter().position(|have| have.same(route)) {
            rivals.swap_remove(position);
            steps.unchanged.push(Entry::Route(route.clone()));
        } else {
            steps.add_routes.push(route.clone());
        }
    }
    let places: BTreeSet<_> = steps.add_routes.iter().map(Route::key).collect();
    let (make_room, remove): (Vec<&Route>, Vec<&Route>) =
        stale.into_values().flatten().partition(|route| places.contains(&route.key()));
    steps.make_room = make_room.into_iter().cloned().collect();
    steps.remove_routes = remove.into_iter().cloned().collect();

    for rule in &plan.rules {
        if !owner.owns_table(rule.table) {
            steps.refused.push(Refusal::new(rule, "the table is not this node's own"));
        } else if installed.rules.contains(rule) {
            steps.unchanged.push(Entry::Rule(rule.clone()));
        } else {
            steps.add_rules.push(rule.clone());
        }
    }
    let stale = installed.rules.iter().filter(|rule| !plan.rules.contains(rule));
    steps.remove_rules = stale.cloned().collect();
    steps
}

/// Why a planned route must not be installed.
///
/// In the main table the rule is the same whoever came first: somebody else's route to the same network with a metric
/// not above ours wins anyway, so ours would only lie there dead, and the network of one of the host's own addresses is
/// never routed elsewhere. Somebody else's route with a higher metric stays beside ours as their fallback.
fn objection(owner: Owner, route: &Route, foreign: &[Foreign]) -> Option<String> {
    if !owner.owns_route(route) {
        return Some("outside of this node's own tables and metric".to_owned());
    }
    if route.table != TABLE_MAIN {
        return None;
    }
    let rival = foreign.iter().find(|other| {
        other.destination == route.destination
            && (other.metric <= route.metric || other.protocol == RTPROT_KERNEL)
    })?;
    let Foreign { destination, metric, protocol } = rival;
    Some(format!(
        "somebody else's route to {destination} (protocol {protocol}, metric {metric}) comes first and is left alone; \
         remove it or drop ours from the configuration"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner::from_port(7400).unwrap()
    }

    fn route(table: u32, destination: &str, via: &str) -> Route {
        Route {
            table,
            destination: destination.parse().unwrap(),
            via: Some(via.parse().unwrap()),
            adapter: "eth0".into(),
            index: 2,
            source: None,
            metric: 7400,
            onlink: false,
        }
    }

    fn rule(slot: u32) -> Rule {
        Rule { from: "10.1.0.2".parse().unwrap(), table: owner().table(slot), priority: 7400 + slot }
    }

    fn main_plan() -> Plan {
        let routes = vec![route(TABLE_MAIN, "10.9.0.0/16", "10.1.0.1")];
        Plan { routes, rules: vec![rule(1)], refused: Vec::new() }
    }

    fn steps(plan: &Plan, installed: &Installed, foreign: &[Foreign]) -> Steps {
        diff(owner(), plan, installed, foreign)
    }

    #[test]
    fn nothing_installed_adds_all_and_then_nothing() {
        let plan = main_plan();
        let first = steps(&plan, &Installed::default(), &[]);
        assert_eq!((&first.add_routes, &first.add_rules), (&plan.routes, &plan.rules));
        let have = Installed { routes: plan.routes.clone(), rules: plan.rules.clone() };
        let again = steps(&plan, &have, &[]);
        assert_eq!(again.unchanged.len(), 2);
        assert_eq!(again, Steps { unchanged: again.unchanged.clone(), ..Steps::default() });
        let none = steps(&Plan::default(), &have, &[]);
        assert_eq!((&none.remove_routes, &none.remove_rules), (&plan.routes, &plan.rules));
    }

    #[test]
    fn a_changed_router_makes_room_first() {
        let old = route(TABLE_MAIN, "10.9.0.0/16", "10.1.0.254");
        let stale = route(owner().table(1), "10.9.0.1/32", "10.1.0.1");
        let have = Installed { routes: vec![old.clone(), stale.clone()], rules: vec![rule(2)] };
        let steps = steps(&main_plan(), &have, &[]);
        assert_eq!(steps.make_room, [old]);
        assert_eq!(steps.add_routes, main_plan().routes);
        assert_eq!(steps.remove_routes, [stale]);
        assert_eq!((steps.add_rules, steps.remove_rules), (vec![rule(1)], vec![rule(2)]));
    }

    #[test]
    fn a_renamed_adapter_is_no_change() {
        let mut have = Installed { routes: main_plan().routes, rules: vec![rule(1)] };
        have.routes[0].adapter = "lan0".into();
        assert_eq!(steps(&main_plan(), &have, &[]).unchanged.len(), 2);
    }

    #[test]
    fn foreign_routes_come_first() {
        let foreign = |destination: &str, metric, protocol| {
            [Foreign { destination: destination.parse().unwrap(), metric, protocol }]
        };
        let refused = |foreign: &[Foreign]| {
            let steps =
                steps(&main_plan(), &Installed { routes: main_plan().routes, rules: vec![] }, foreign);
            // Ours is withdrawn whether or not it was there first.
            assert_eq!(steps.refused.len(), steps.remove_routes.len());
            steps.refused.len()
        };
        assert_eq!(refused(&foreign("10.9.0.0/16", 0, 3)), 1);
        assert_eq!(refused(&foreign("10.9.0.0/16", 7400, 4)), 1);
        assert_eq!(refused(&foreign("10.9.0.0/16", 9000, 4)), 0);
        assert_eq!(refused(&foreign("10.9.0.0/16", 9000, RTPROT_KERNEL)), 1);
        assert_eq!(refused(&foreign("10.9.0.0/24", 0, 3)), 0);
    }

    #[test]
    fn nothing_outside_of_our_range_is_installed() {
        let other = Owner::from_port(7401).unwrap();
        let mut plan = main_plan();
        plan.routes = vec![
            route(255, "10.9.0.0/16", "10.1.0.1"),
            route(other.table(1), "10.9.0.1/32", "10.1.0.1"),
            Route { metric: 0, ..route(TABLE_MAIN, "10.9.0.0/16", "10.1.0.1") },
        ];
        plan.rules[0].table = 255;
        let steps = steps(&plan, &Installed::default(), &[]);
        assert_eq!(steps.refused.len(), 4);
        assert!(steps.add_routes.is_empty() && steps.add_rules.is_empty());
    }
}
