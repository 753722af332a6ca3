//! What the core shows of itself.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use alloc::{format, vec};
use core::net::SocketAddr;
use core::time::Duration;

use overlan_contract::failover::PathState;
use overlan_wire::{Adapter, Entry, NodeId, Record};

use super::{Core, is_live};
use crate::crypto::Crypto;
use crate::path::Path;
use crate::peer::Peer;
use crate::status::{
    AdapterEntry, CoreStatus, MemberState, MemberStatus, Ownership, PathStatus, PlanStatus, Reachability,
    TableEntry, TableStatus,
};
use crate::table::{adapter_at, contract_status, socket_address};
use crate::time::Instant;

/// A member without a path for so long is not on its way up or down.
const OUT_OF_REACH: Duration = Duration::from_secs(5);
/// Of a live member with paths to it.
const NO_ANSWER: &str = "nothing that is sent from here is answered: messages to it wait; check the routes and firewalls \
                         between the two, both ways (`overlan paths`), and that no router translates addresses \
                         (`received_off_path`)";
/// Of one without.
const NO_PAIR: &str = "no adapter here has an address that goes with one of its own: messages to it wait; give both an IPv4 \
                       address, or both an IPv6 one (loopback addresses go with each other alone)";

impl<C: Crypto> Core<C> {
    /// At a glance.
    pub fn status(&self, now: Instant) -> CoreStatus {
        let digest = self.table.digest();
        CoreStatus {
            name: self.config.name.clone(),
            id: self.id.to_string(),
            boot: self.config.boot.to_string(),
            joined: self.hellos.joined.is_some(),
            alive: self.table.entries().filter(|entry| is_live(self.state_of(entry.id))).count() as u32,
            members: self.table.entries().count() as u32,
            table_digest: digest.to_string(),
            agreed_epoch: self.agreement.epoch,
            agreed: self.agreement.digest == digest,
            agreement_us: self.agreement.took.map(micros64),
            document: self.document_status(),
            problems: self.problems(now),
            counters: self.counters,
        }
    }

    fn problems(&self, now: Instant) -> Vec<String> {
        let mut problems = Vec::new();
        for refused in &self.hellos.refused {
            problems.push(overlan_wire::frame::refusal_text(refused.code).to_string());
        }
        let nobody =
            !self.table.entries().any(|entry| entry.id != self.id && is_live(self.state_of(entry.id)));
        let own = |seed: &&SocketAddr| {
            self.adapters.iter().any(|own| (own.address, own.port) == (seed.ip(), seed.port()))
        };
        let seeds: Vec<_> =
            self.config.seeds.iter().filter(|seed| !own(seed)).map(ToString::to_string).collect();
        if let Some((id, times)) = self.stranger.zip(self.strangers.lasting(now)) {
            problems.push(format!(
                "{times} entries of nodes that [cluster] allow does not list were dropped (last of {id}): list those that \
                 are to be members"
            ));
        } else if nobody
            && self.hellos.refused.is_empty()
            && now.since(Instant::ZERO) > Duration::from_secs(1)
        {
            problems.extend(self.nobody_answers(&seeds));
        }
        problems.extend(self.some_do_not_answer());
        if let Some(times) = self.kept_out.lasting(now) {
            problems.push(format!(
                "{times} times a newcomer was kept out, since the table holds {} entries and has no room for more: \
                 `overlan forget` members that are gone for good",
                self.table.entries().count()
            ));
        }
        // One alone may be damaged.
        let wrong = self.wrong_key.zip(self.unknown_keys.lasting(now).filter(|&times| times > 1));
        if let Some(((from, key), times)) = wrong {
            problems.push(format!(
                "{times} datagrams were sealed with a cluster key that is not on the keyring (last from {from}, key \
                 id {:08x}): give all members the same key_file",
                key.0
            ));
        }
        problems.extend(self.document_problems());
        if let Some(times) = self.forgeries.lasting(now) {
            problems.push(format!(
                "{times} datagrams failed authentication: damaged or forged, or from a cluster with the same key and \
                 another [cluster] name"
            ));
        }
        if let Some((id, times)) = self.impostors.lasting(now) {
            problems.push(format!(
                "datagrams came in the name of {} that it did not send ({times} times): another that has the cluster key \
                 lies: change the key (`overlan keys`) and give it to those alone that are to be members",
                self.name_of(id)
            ));
        }
        problems.extend(self.removal_problem(now));
        problems.extend(self.conflict.problems(now));
        for (id, times) in self.restarts.lasting(now) {
            let name = self.name_of(id);
            problems.push(format!(
                "{name} began anew {times} times, never a minute apart: something starts it again and again, or two \
                 nodes run with its identity, as a copied state_dir makes it: its log and its status say which"
            ));
        }
        let mut names = BTreeSet::new();
        let twice = self.table.entries().map(|entry| entry.name.as_str()).find(|&name| !names.insert(name));
        if let Some(name) = twice {
            problems.push(format!(
                "two members are named {name}: rename one, or `overlan forget {name}` where one is dead"
            ));
        }
        for (id, why) in self.out_of_reach(now) {
            problems.push(format!("{} lives, as other members say, and {why}", self.name_of(id)));
        }
        problems.extend(self.planner.problems(|id| self.name_of(id)));
        if self.adapters.is_empty() {
            problems.push("no adapter is usable: nothing can be sent or received".to_string());
        }
        problems
    }

    /// Live members that nothing from here has led to for a while.
    pub fn unreachable(&self, now: Instant) -> Vec<NodeId> {
        self.out_of_reach(now).map(|(id, _)| id).collect()
    }

    /// Live members that nothing from here has led to for a while, and what to do.
    fn out_of_reach(&self, now: Instant) -> impl Iterator<Item = (NodeId, &'static str)> {
        let down = |path: &Path| path.state() == PathState::Down;
        let lost = move |path: &Path| down(path) && now.since(path.health.since()) >= OUT_OF_REACH;
        let lives = |peer: &&Peer<C::Aead>| self.state_of(peer.id) == MemberState::Alive;
        let settled =
            move |id: NodeId| self.seen.get(&id).is_some_and(|seen| now.since(seen.since) >= OUT_OF_REACH);
        self.peers.values().map(AsRef::as_ref).filter(lives).filter_map(move |peer| {
            let why = if peer.paths.is_empty() {
                settled(peer.id).then_some(NO_PAIR)
            } else {
                let in_vain = !peer.is_open() && self.handshakes.in_vain(peer.id) && settled(peer.id);
                (in_vain || peer.paths.iter().all(lost)).then_some(NO_ANSWER)
            };
            Some((peer.id, why?))
        })
    }

    /// All members by ascending node id.
    pub fn members(&self, now: Instant) -> Vec<MemberStatus> {
        let status = |entry: &Entry| MemberStatus {
            name: entry.name.clone(),
            id: entry.id.to_string(),
            boot: entry.boot.to_string(),
            state: self.state_of(entry.id),
            since_ms: self
                .seen
                .get(&entry.id)
                .map_or(now.since(Instant::ZERO), |seen| now.since(seen.since))
                .as_millis() as u64,
            this: entry.id == self.id,
        };
        self.table.entries().map(status).collect()
    }

    /// The table.
    pub fn table(&self) -> TableStatus {
        let forgotten = self.table.records().filter_map(|signed| match signed.record {
            Record::Forgotten(forgotten) => Some(forgotten.id.to_string()),
            Record::Entry(_) => None,
        });
        TableStatus {
            digest: self.table.digest().to_string(),
            entries: self.table.entries().map(table_entry).collect(),
            forgotten: forgotten.collect(),
        }
    }

    /// All paths, by peer and then in the policy's order.
    pub fn paths(&self, now: Instant) -> Vec<PathStatus> {
        let mut all = vec![];
        for peer in self.peers.values() {
            let name = self.name_of(peer.id);
            let mut paths: Vec<_> =
                peer.paths.iter().map(|path| self.path_status(peer, path, &name, now)).collect();
            paths.sort_by_key(|path| path.rank);
            all.extend(paths);
        }
        all
    }

    fn path_status(&self, peer: &Peer<C::Aead>, path: &Path, name: &str, now: Instant) -> PathStatus {
        let micros = |duration: Duration| u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
        let rtt = path.rtt.measured();
        let to_remote = || peer.paths.iter().filter(|other| other.remote == path.remote).map(Path::state);
        let reachability = if to_remote().any(|state| state == PathState::Up) {
            Reachability::Reachable
        } else if to_remote().all(|state| state == PathState::Down) {
            Reachability::Unreachable
        } else {
            Reachability::Suspect
        };
        PathStatus {
            node: name.to_string(),
            id: peer.id.to_string(),
            adapter: adapter_at(&self.adapters, path.local)
                .map(|adapter| adapter.name.clone())
                .unwrap_or_default(),
            local: path.local,
            remote: path.remote,
            rank: peer.rank(path.id) as u32,
            active: peer.active == Some(path.id),
            state: path.state(),
            reachability,
            why: path.health.why().to_string(),
            since_ms: now.since(path.health.since()).as_millis() as u64,
            rtt_us: rtt.map(|(smoothed, ..)| micros(smoothed)),
            rtt_variance_us: rtt.map(|(_, variance, _)| micros(variance)),
            rtt_min_us: rtt.map(|(.., min)| micros(min)),
            loss_ppm: path.recovery.loss_ppm(),
            datagram: path.mtu.confirmed().min(path.datagram_limit()) as u32,
            datagram_allowed: path.datagram_limit() as u32,
            flaps: path.flaps(now),
            probed: peer.is_probed(now, self.probe_all()),
            reply_timeout_us: path.timing.reply_timeout_us,
            probe_interval_us: path.timing.probe_interval_us,
            sent: path.sent,
            lost: path.recovery.lost_count(),
            received: path.received,
        }
    }

    /// The plan in force.
    pub fn plan(&self) -> PlanStatus {
        self.planner.status(|id| self.name_of(id))
    }

    /// What this member owns and stands by for, and the plan's epoch; nothing without a quorum.
    pub fn own_duties(&self) -> (u64, BTreeMap<String, Ownership>) {
        self.planner.own_duties()
    }

    /// A member's name; its id where the table has none.
    pub fn name_of(&self, id: NodeId) -> String {
        self.table.entry(id).map_or_else(|| id.to_string(), |entry| entry.name.clone())
    }
}

fn table_entry(entry: &Entry) -> TableEntry {
    TableEntry {
        name: entry.name.clone(),
        id: entry.id.to_string(),
        boot: entry.boot.to_string(),
        version: entry.version,
        left: entry.left,
        adapters: entry.adapters.iter().map(adapter_entry).collect(),
        attributes: entry.attributes.clone(),
        operator: entry.operator.map(|operator| operator.to_string()),
    }
}

fn adapter_entry(adapter: &Adapter) -> AdapterEntry {
    AdapterEntry {
        name: adapter.name.clone(),
        kind: adapter.kind.clone(),
        address: socket_address(adapter),
        prefix_length: adapter.prefix_length,
        mtu: adapter.mtu,
        speed: adapter.speed,
        class_of_service: adapter.class_of_service.clone(),
        dscp: adapter.dscp,
        status: contract_status(adapter.status),
        gateways: adapter.gateways.clone(),
    }
}

fn micros64(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
