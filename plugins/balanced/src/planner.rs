//! The plan while it is made.

use std::collections::{BTreeMap, BTreeSet};

use overlan_plugin_sdk::assignment::{Answer, Question};
use overlan_plugin_sdk::placement::{Eligible, Lightest, number_subnets, overlap};

/// How many of the least loaded nodes are tried as the new owner of a duty.
const TARGETS: usize = 4;

/// How many of the lightest nodes are tried before all nodes are looked at: on a single subnet none will do.
const TRIES: usize = 16;

/// The plan while it is made, with the load of each node.
pub(crate) struct Planner<'a> {
    question: &'a Question,
    standby_percent: u64,
    /// Per duty: its owners so far, primary first.
    owners: Vec<Vec<u32>>,
    /// Who may own what, ascending.
    eligible: Eligible<u32>,
    /// Per node: the subnets of its adapters that are up, by number, ascending.
    subnets: Vec<Vec<u32>>,
    /// Per node: what it bears, in hundred-thousandths of an ordinary duty.
    load: Vec<u64>,
}

/// Taking one place of a duty from a node.
struct Move {
    duty: usize,
    place: usize,
    to: u32,
}

impl<'a> Planner<'a> {
    /// An empty plan.
    pub(crate) fn new(question: &'a Question, standby_percent: u32) -> Self {
        let eligible = Eligible::new(question, |index, _| index);
        let owners =
            (0..question.responsibilities.len()).map(|duty| Vec::with_capacity(eligible.wanted(duty)));
        Planner {
            question,
            standby_percent: standby_percent.into(),
            owners: owners.collect(),
            eligible,
            subnets: number_subnets(&question.nodes),
            load: vec![0; question.nodes.len()],
        }
    }

    /// Takes over the previous owners that may still own.
    pub(crate) fn keep_previous(&mut self) {
        for (duty, previous) in self.question.previous.iter().enumerate().take(self.owners.len()) {
            for &node in previous {
                let eligible = self.eligible.contains(duty, node, |&node| node);
                if eligible
                    && self.owners[duty].len() < self.wanted(duty)
                    && !self.owners[duty].contains(&node)
                {
                    self.push(duty, node);
                }
            }
        }
    }

    /// Replaces standbys that share a subnet with another owner, where a node that does not is to be had.
    pub(crate) fn part_standbys(&mut self) {
        for duty in 0..self.owners.len() {
            for place in 1..self.owners[duty].len() {
                if !self.shares(duty, place, self.owners[duty][place]) {
                    continue;
                }
                let apart = self.least_loaded(duty, place);
                if let Some(to) = apart.filter(|&to| !self.shares(duty, place, to)) {
                    self.apply(&Move { duty, place, to });
                }
            }
        }
    }

    /// Fills the places left open: all primaries, heaviest duties first, then the first standbys, and so on.
    pub(crate) fn fill(&mut self) {
        let open = |planner: &Self, duty: usize| planner.owners[duty].len() < planner.wanted(duty);
        let mut duties: Vec<usize> = (0..self.owners.len()).filter(|&duty| open(self, duty)).collect();
        duties.sort_by_key(|&duty| std::cmp::Reverse(self.weight(duty)));
        let places = duties.iter().map(|&duty| self.wanted(duty)).max().unwrap_or(0);
        let mut lightest = vec![Lightest::default(); self.eligible.groups().len()];
        for place in 0..places {
            for &duty in &duties {
                let lightest = &mut lightest[self.eligible.group(duty)];
                if self.owners[duty].len() == place
                    && open(self, duty)
                    && let Some(node) = self.place(duty, place, lightest)
                {
                    self.push(duty, node);
                    lightest.note_growth();
                }
            }
        }
    }

    /// As [`least_loaded`](Self::least_loaded), which looks at all nodes: here at the lightest alone, if one will do.
    fn place(&self, duty: usize, place: usize, lightest: &mut Lightest<u32>) -> Option<u32> {
        let load = |&node: &u32| self.load[node as usize];
        let (least, nodes) = lightest.find(self.eligible.nodes(duty), load);
        let free = |node: &u32| load(node) == least && !self.owners[duty].contains(node);
        let mut first = nodes.iter().copied().filter(free).take(TRIES);
        first.find(|&node| !self.shares(duty, place, node)).or_else(|| self.least_loaded(duty, place))
    }

    /// Moves duties off nodes that bear too much, and onto nodes that bear too little; tells how many it
    /// moved. Each move makes the sum of the squared loads smaller, so that it ends.
    pub(crate) fn balance(&mut self, tolerance_percent: u32, max_moves: u32) -> u32 {
        let (low, high) = self.band(tolerance_percent.into());
        // Per node the duties it owns; made when first looked at, which most plans never do.
        let mut places: Option<Vec<BTreeSet<usize>>> = None;
        let mut stuck = vec![false; self.load.len()];
        let mut moves = 0;
        while moves < max_moves {
            let free = || (0..self.load.len()).filter(|&node| !stuck[node] && self.question.nodes[node].live);
            let over = free().filter(|&node| self.load[node] > high).max_by_key(|&node| self.load[node]);
            let under = || free().filter(|&node| self.load[node] <= low).min_by_key(|&node| self.load[node]);
            let (node, step) = if let Some(from) = over {
                let places = places.get_or_insert_with(|| self.places());
                (from, self.best_move(from as u32, &places[from]))
            } else if let Some(to) = under() {
                (to, self.best_pull(to as u32))
            } else {
                break;
            };
            let Some(step) = step else {
                stuck[node] = true;
                continue;
            };
            let from = self.owners[step.duty][step.place];
            let swapped = self.apply(&step);
            if let Some(places) = &mut places {
                if !swapped {
                    places[from as usize].remove(&step.duty);
                }
                places[step.to as usize].insert(step.duty);
            }
            stuck.fill(false);
            moves += 1;
        }
        moves
    }

    /// Per node the duties it owns.
    fn places(&self) -> Vec<BTreeSet<usize>> {
        let mut places = vec![BTreeSet::new(); self.load.len()];
        for (duty, owners) in self.owners.iter().enumerate() {
            owners.iter().for_each(|&node| _ = places[node as usize].insert(duty));
        }
        places
    }

    /// The loads beyond which a node bears too little or too much: off the average by the tolerance, and by
    /// an average duty at least, since duties cannot be split.
    fn band(&self, tolerance_percent: u64) -> (u64, u64) {
        let live = self.question.nodes.iter().filter(|node| node.live).count().max(1) as u64;
        let duties = self.owners.len().max(1) as u64;
        let average = self.load.iter().sum::<u64>() / live;
        let one = (0..self.owners.len()).map(|duty| self.burden(duty, 0)).sum::<u64>() / duties;
        let slack = (average * tolerance_percent / 100).max(one);
        (average.saturating_sub(slack), average + slack)
    }

    /// The plan.
    pub(crate) fn into_answer(self) -> Answer {
        Answer { owners: self.owners }
    }

    /// The move that takes most off a node without making another as loaded, or a standby less apart.
    fn best_move(&self, from: u32, duties: &BTreeSet<usize>) -> Option<Move> {
        let mut targets: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        let mut best: Option<(u64, Move)> = None;
        for &duty in duties {
            let Some(place) = self.owners[duty].iter().position(|&owner| owner == from) else { continue };
            let targets = targets
                .entry(self.eligible.group(duty))
                .or_insert_with(|| self.targets(self.eligible.nodes(duty)));
            for &to in targets.iter() {
                let Some(relief) = self.relief(duty, place, to) else { continue };
                let helps = self.load[to as usize] + relief < self.load[from as usize];
                if helps && best.as_ref().is_none_or(|(most, _)| relief > *most) {
                    best = Some((relief, Move { duty, place, to }));
                }
            }
        }
        best.map(|(_, step)| step)
    }

    /// The move onto a node that takes most off the most loaded owner.
    fn best_pull(&self, to: u32) -> Option<Move> {
        let takes: Vec<bool> =
            self.eligible.groups().iter().map(|group| group.binary_search(&to).is_ok()).collect();
        let duties = (0..self.owners.len()).filter(|&duty| takes[self.eligible.group(duty)]);
        let places = duties.flat_map(|duty| (0..self.owners[duty].len()).map(move |place| (duty, place)));
        let helpful = places.filter_map(|(duty, place)| {
            let from = self.load[self.owners[duty][place] as usize];
            if from <= self.load[to as usize] {
                return None;
            }
            let relief = self.relief(duty, place, to)?;
            (self.load[to as usize] + relief < from).then_some(((from, relief), Move { duty, place, to }))
        });
        helpful.max_by_key(|(key, _)| *key).map(|(_, step)| step)
    }

    /// How much a move takes off the old owner and puts on the new one; none if it may not be made.
    fn relief(&self, duty: usize, place: usize, to: u32) -> Option<u64> {
        if self.owners[duty].contains(&to) {
            let swap = self.burden(duty, 0) - self.burden(duty, 1);
            return (place == 0 && self.owners[duty][0] != to && swap > 0).then_some(swap);
        }
        let from = self.owners[duty][place];
        let stays_apart = !self.shares(duty, place, to) || self.shares(duty, place, from);
        let relief = self.burden(duty, place);
        (stays_apart && relief > 0).then_some(relief)
    }

    /// Makes a move; tells whether it was a swap of the primary with a standby.
    fn apply(&mut self, step: &Move) -> bool {
        let Move { duty, place, to } = *step;
        let from = self.owners[duty][place];
        let other = self.owners[duty].iter().position(|&owner| owner == to);
        self.load[from as usize] -= self.burden(duty, place);
        self.load[to as usize] += self.burden(duty, place);
        if let Some(other) = other {
            self.load[from as usize] += self.burden(duty, other);
            self.load[to as usize] -= self.burden(duty, other);
            self.owners[duty][other] = from;
        }
        self.owners[duty][place] = to;
        other.is_some()
    }

    fn push(&mut self, duty: usize, node: u32) {
        self.load[node as usize] += self.burden(duty, self.owners[duty].len());
        self.owners[duty].push(node);
    }

    /// The best node for a place that does not own the duty yet: apart from the other owners, then least
    /// loaded, then first in the table. Looks at subnets only where the load makes a node worth it.
    fn least_loaded(&self, duty: usize, place: usize) -> Option<u32> {
        // Their loads, by which all but a few are out of the race.
        let (mut apart, mut close): (Option<u32>, Option<u32>) = (None, None);
        let (mut least_apart, mut least_close) = (u64::MAX, u64::MAX);
        // Passed over eight at a time: a plugin is charged for each turn of a loop.
        for eight in self.eligible.nodes(duty).chunks(8) {
            let loads = eight.iter().map(|&node| self.load[node as usize]);
            if !loads.fold(false, |any, load| any | (load < least_apart)) {
                continue;
            }
            for &node in eight {
                let load = self.load[node as usize];
                if load >= least_apart || self.owners[duty].contains(&node) {
                    continue;
                }
                if !self.shares(duty, place, node) {
                    (apart, least_apart) = (Some(node), load);
                } else if load < least_close {
                    (close, least_close) = (Some(node), load);
                }
            }
        }
        apart.or(close)
    }

    fn targets(&self, group: &[u32]) -> Vec<u32> {
        let mut least: Vec<u32> = Vec::with_capacity(TARGETS + 1);
        for &node in group {
            let place = least.partition_point(|&other| self.load[other as usize] <= self.load[node as usize]);
            if place < TARGETS {
                least.insert(place, node);
                least.truncate(TARGETS);
            }
        }
        least
    }

    /// Whether a node would, at this place, share a subnet with one of the duty's other owners.
    fn shares(&self, duty: usize, place: usize, node: u32) -> bool {
        let others = self.owners[duty].iter().enumerate().filter(|&(other, _)| other != place);
        others
            .into_iter()
            .any(|(_, &other)| overlap(&self.subnets[node as usize], &self.subnets[other as usize]))
    }

    fn wanted(&self, duty: usize) -> usize {
        self.eligible.wanted(duty)
    }

    /// A duty of no weight is still spread: it counts as a thousandth of an ordinary one.
    fn weight(&self, duty: usize) -> u64 {
        self.question.responsibilities[duty].weight_milli.max(1).into()
    }

    fn burden(&self, duty: usize, place: usize) -> u64 {
        self.weight(duty) * if place == 0 { 100 } else { self.standby_percent }
    }
}
