//! What planners tell each other.
//!
//! All integers are big-endian; short texts stand behind a length byte. Bytes behind the last known field
//! are a later version's and are skipped; a plan is passed on as the bytes it came in.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use overlan_contract::Attributes;
use overlan_contract::assignment::{MAX_NODES, MAX_REPLICAS, MAX_RESPONSIBILITIES, Responsibility};
use overlan_wire::codec::{is_printable_text, put_text};
use overlan_wire::limits::{MAX_ATTRIBUTES, MAX_MESSAGE};
use overlan_wire::{BootId, DecodeError, Digest, DocumentId, NodeId, Reader};

pub use overlan_wire::Ballot;
pub use overlan_wire::limits::MAX_EPOCH;

/// Longest name or attribute text of a responsibility, in bytes.
pub const MAX_DUTY_TEXT: usize = 255;
/// Largest encoded document (the responsibilities), in bytes: with the largest plan beside it, a proposal
/// still fits one message.
pub const MAX_DOCUMENT: usize = 8 << 20;
/// Longest reason in a vote or proposal, in bytes.
pub const MAX_WHY: usize = 200;

/// Most votes of others in one message.
pub(crate) const MAX_PASSED: usize = 64;

const KIND_PROPOSAL: u8 = 1;
const KIND_VOTE: u8 = 2;
const KIND_FETCH: u8 = 3;
const KIND_DOCUMENT: u8 = 4;

/// A plan and the question it answers. Parsing checks that it is consistent in itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal {
    pub(crate) ballot: Ballot,
    pub(crate) seed: u64,
    pub(crate) question: Digest,
    pub(crate) table: Digest,
    pub(crate) plugin: Digest,
    /// Why the plan is the native fallback's; empty where the proposer's policy answered.
    pub(crate) fault: String,
    /// The nodes of the question in table order; the live ones with their boot.
    pub(crate) nodes: Vec<(NodeId, Option<BootId>)>,
    pub(crate) responsibilities: Vec<Responsibility>,
    /// Indices into `nodes`.
    pub(crate) previous: Vec<Vec<u32>>,
    /// Indices into `nodes`.
    pub(crate) owners: Vec<Vec<u32>>,
    /// The cluster document that the responsibilities are of; the default where none was applied.
    pub(crate) document: DocumentId,
}

/// What a member has to say about the plan in force with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Opinion {
    /// It has not answered itself yet.
    Pending(String),
    /// Digest of the plan that it would have made.
    Answered(Digest),
    /// Its policy gave none.
    Fault(String),
}

/// What a member reports to the one it takes for the proposer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vote {
    /// The voter's life; with `serial` it tells which of two votes is the later.
    pub(crate) boot: BootId,
    pub(crate) serial: u64,
    /// What is in force with the voter; `None`: nothing.
    pub(crate) ballot: Option<Ballot>,
    /// The voter's table and plugin.
    pub(crate) table: Digest,
    pub(crate) plugin: Digest,
    pub(crate) opinion: Opinion,
    /// The voter was configured with other responsibilities than the plan's.
    pub(crate) document_differs: bool,
    /// The voter asks for the plan in force.
    pub(crate) wants: bool,
}

impl Vote {
    /// Whether the proposer learns nothing from one of two votes of a member that the other does not tell.
    pub(crate) fn says_the_same(&self, other: &Vote) -> bool {
        let said = |vote: &Vote| (vote.boot, vote.ballot, vote.plugin, vote.document_differs);
        said(self) == said(other) && self.opinion == other.opinion
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PlanMessage {
    Proposal(Proposal),
    /// The sender's, and those of others who got the plan in force from it.
    Vote(Vote, Vec<(NodeId, Vote)>),
    /// Asks for the plan in force with the receiver.
    Fetch,
    /// The sender's responsibilities, for a proposer that has none.
    Document(Vec<Responsibility>),
}

impl PlanMessage {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_MESSAGE {
            return Err(DecodeError::OutOfRange("plan message length"));
        }
        let mut r = Reader::new(bytes);
        match r.u8("plan message kind")? {
            KIND_PROPOSAL => Ok(PlanMessage::Proposal(parse_proposal(&mut r)?)),
            KIND_VOTE => Ok(PlanMessage::Vote(parse_vote(&mut r)?, parse_passed(&mut r)?)),
            KIND_FETCH => Ok(PlanMessage::Fetch),
            KIND_DOCUMENT => Ok(PlanMessage::Document(parse_document(&mut r)?)),
            _ => Err(DecodeError::OutOfRange("plan message kind")),
        }
    }

    pub(crate) fn emit(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            PlanMessage::Proposal(proposal) => {
                out.push(KIND_PROPOSAL);
                emit_proposal(&mut out, proposal);
            }
            PlanMessage::Vote(vote, passed) => {
                out.push(KIND_VOTE);
                emit_vote(&mut out, vote);
                emit_passed(&mut out, passed);
            }
            PlanMessage::Fetch => out.push(KIND_FETCH),
            PlanMessage::Document(document) => {
                out.push(KIND_DOCUMENT);
                emit_document(&mut out, document);
            }
        }
        out
    }
}

fn emit_ballot(out: &mut Vec<u8>, ballot: Ballot) {
    out.extend_from_slice(&ballot.epoch.to_be_bytes());
    out.extend_from_slice(&ballot.proposer.0);
    out.extend_from_slice(&ballot.boot.0);
}

fn parse_ballot(r: &mut Reader<'_>) -> Result<Ballot, DecodeError> {
    let epoch = r.u64("epoch")?;
    if epoch == 0 || epoch > MAX_EPOCH {
        return Err(DecodeError::OutOfRange("epoch"));
    }
    Ok(Ballot { epoch, proposer: NodeId(r.array("proposer")?), boot: BootId(r.array("proposer's boot")?) })
}

/// What is wrong with a responsibility, in a sentence that names the field.
pub(crate) fn check_responsibility(duty: &Responsibility) -> Result<(), String> {
    let name = &duty.name;
    let fits = |text: &str| text.len() <= MAX_DUTY_TEXT && is_printable_text(text);
    if name.is_empty() || !fits(name) {
        return Err(format!("responsibility.name `{name}` must have 1 to {MAX_DUTY_TEXT} printable bytes"));
    }
    let of = |what: &str| format!("responsibility `{name}`: {what}");
    if !(1..=MAX_REPLICAS).contains(&duty.replicas) {
        return Err(of(&format!("replicas is {}; it must be from 1 to {MAX_REPLICAS}", duty.replicas)));
    }
    if duty.requires.len() > MAX_ATTRIBUTES {
        return Err(of(&format!("requires names more than {MAX_ATTRIBUTES} attributes")));
    }
    match duty.requires.iter().flat_map(|(key, value)| [key, value]).find(|text| !fits(text)) {
        Some(text) => {
            Err(of(&format!("requires: `{text}` must have at most {MAX_DUTY_TEXT} printable bytes")))
        }
        None => Ok(()),
    }
}

/// Encodes responsibilities; also what a document digest covers. The caller keeps within the limits (see
/// `question::checked_document`).
pub(crate) fn emit_document(out: &mut Vec<u8>, document: &[Responsibility]) {
    out.extend_from_slice(&(document.len() as u32).to_be_bytes());
    for duty in document {
        put_text(out, &duty.name, MAX_DUTY_TEXT);
        out.push(duty.replicas as u8);
        out.extend_from_slice(&duty.weight_milli.to_be_bytes());
        out.push(duty.requires.len() as u8);
        for (key, value) in &duty.requires {
            put_text(out, key, MAX_DUTY_TEXT);
            put_text(out, value, MAX_DUTY_TEXT);
        }
    }
}

pub(crate) fn parse_document(r: &mut Reader<'_>) -> Result<Vec<Responsibility>, DecodeError> {
    let start = r.rest().len();
    let count = r.u32("responsibility count")? as usize;
    if count > MAX_RESPONSIBILITIES {
        return Err(DecodeError::OutOfRange("responsibility count"));
    }
    let mut document: Vec<Responsibility> = Vec::new();
    for _ in 0..count {
        let name = r.text(MAX_DUTY_TEXT, "responsibility name")?;
        let replicas = u32::from(r.u8("replicas")?);
        if replicas == 0 || replicas > MAX_REPLICAS {
            return Err(DecodeError::OutOfRange("replicas"));
        }
        let weight_milli = r.u32("weight")?;
        let pairs = usize::from(r.u8("requirement count")?);
        if pairs > MAX_ATTRIBUTES {
            return Err(DecodeError::OutOfRange("requirement count"));
        }
        let mut requires = Attributes::new();
        for _ in 0..pairs {
            requires.push((
                r.text(MAX_DUTY_TEXT, "requirement key")?,
                r.text(MAX_DUTY_TEXT, "requirement value")?,
            ));
        }
        document.push(Responsibility { name, replicas, weight_milli, requires });
    }
    // Made in one go it costs far less than name by name.
    let names: BTreeSet<&str> = document.iter().map(|duty| duty.name.as_str()).collect();
    if names.len() < document.len() {
        return Err(DecodeError::OutOfRange("a responsibility's name, given twice,"));
    }
    if start - r.rest().len() > MAX_DOCUMENT {
        return Err(DecodeError::OutOfRange("document length"));
    }
    Ok(document)
}

fn emit_lists(out: &mut Vec<u8>, lists: &[Vec<u32>]) {
    for list in lists {
        out.push(list.len() as u8);
        for &index in list {
            out.extend_from_slice(&(index as u16).to_be_bytes());
        }
    }
}

/// Reads `count` lists of distinct indices below `nodes`.
fn parse_lists(
    r: &mut Reader<'_>,
    count: usize,
    nodes: usize,
    what: &'static str,
) -> Result<Vec<Vec<u32>>, DecodeError> {
    let mut lists = Vec::new();
    for _ in 0..count {
        let len = r.u8(what)?;
        if u32::from(len) > MAX_REPLICAS {
            return Err(DecodeError::OutOfRange(what));
        }
        let mut list: Vec<u32> = Vec::with_capacity(usize::from(len));
        for _ in 0..len {
            let index = u32::from(r.u16(what)?);
            if index as usize >= nodes || list.contains(&index) {
                return Err(DecodeError::OutOfRange(what));
            }
            list.push(index);
        }
        lists.push(list);
    }
    Ok(lists)
}

fn emit_proposal(out: &mut Vec<u8>, proposal: &Proposal) {
    emit_ballot(out, proposal.ballot);
    out.extend_from_slice(&proposal.seed.to_be_bytes());
    for digest in [proposal.question, proposal.table, proposal.plugin] {
        out.extend_from_slice(&digest.0);
    }
    put_text(out, &proposal.fault, MAX_WHY);
    out.extend_from_slice(&(proposal.nodes.len() as u16).to_be_bytes());
    for (node, boot) in &proposal.nodes {
        out.extend_from_slice(&node.0);
        out.push(u8::from(boot.is_some()));
        if let Some(boot) = boot {
            out.extend_from_slice(&boot.0);
        }
    }
    emit_document(out, &proposal.responsibilities);
    emit_lists(out, &proposal.previous);
    emit_lists(out, &proposal.owners);
    out.extend_from_slice(&proposal.document.version.to_be_bytes());
    out.extend_from_slice(&proposal.document.digest.0);
}

fn parse_nodes(r: &mut Reader<'_>) -> Result<Vec<(NodeId, Option<BootId>)>, DecodeError> {
    let count = usize::from(r.u16("node count")?);
    if count > MAX_NODES {
        return Err(DecodeError::OutOfRange("node count"));
    }
    let mut nodes: Vec<(NodeId, Option<BootId>)> = Vec::new();
    for _ in 0..count {
        let node = NodeId(r.array("node")?);
        if nodes.last().is_some_and(|(last, _)| *last >= node) {
            return Err(DecodeError::OutOfRange("node order"));
        }
        let boot = match r.u8("whether the node is live")? {
            0 => None,
            1 => Some(BootId(r.array("boot")?)),
            _ => return Err(DecodeError::OutOfRange("whether the node is live")),
        };
        nodes.push((node, boot));
    }
    Ok(nodes)
}

fn parse_proposal(r: &mut Reader<'_>) -> Result<Proposal, DecodeError> {
    let ballot = parse_ballot(r)?;
    let seed = r.u64("seed")?;
    let question = Digest(r.array("question digest")?);
    let table = Digest(r.array("table digest")?);
    let plugin = Digest(r.array("plugin digest")?);
    let fault = r.text(MAX_WHY, "fault")?;
    let nodes = parse_nodes(r)?;
    if !nodes.contains(&(ballot.proposer, Some(ballot.boot))) {
        return Err(DecodeError::OutOfRange("proposer"));
    }
    let responsibilities = parse_document(r)?;
    let previous = parse_lists(r, responsibilities.len(), nodes.len(), "previous owner")?;
    let owners = parse_lists(r, responsibilities.len(), nodes.len(), "owner")?;
    for (duty, list) in responsibilities.iter().zip(&owners) {
        let live = |&index: &u32| nodes.get(index as usize).is_some_and(|(_, boot)| boot.is_some());
        if list.len() > duty.replicas as usize || !list.iter().all(live) {
            return Err(DecodeError::OutOfRange("owner"));
        }
    }
    // A member that knows no cluster documents ends here.
    let mut document = DocumentId::default();
    if !r.is_empty() {
        document =
            DocumentId { version: r.u64("document version")?, digest: Digest(r.array("document digest")?) };
    }
    Ok(Proposal {
        ballot,
        seed,
        question,
        table,
        plugin,
        fault,
        nodes,
        responsibilities,
        previous,
        owners,
        document,
    })
}

fn emit_vote(out: &mut Vec<u8>, vote: &Vote) {
    out.extend_from_slice(&vote.boot.0);
    out.extend_from_slice(&vote.serial.to_be_bytes());
    out.push(
        u8::from(vote.ballot.is_some()) | u8::from(vote.document_differs) << 1 | u8::from(vote.wants) << 2,
    );
    if let Some(ballot) = vote.ballot {
        emit_ballot(out, ballot);
    }
    out.extend_from_slice(&vote.table.0);
    out.extend_from_slice(&vote.plugin.0);
    match &vote.opinion {
        Opinion::Pending(why) => {
            out.push(0);
            put_text(out, why, MAX_WHY);
        }
        Opinion::Answered(digest) => {
            out.push(1);
            out.extend_from_slice(&digest.0);
        }
        Opinion::Fault(why) => {
            out.push(2);
            put_text(out, why, MAX_WHY);
        }
    }
}

fn parse_vote(r: &mut Reader<'_>) -> Result<Vote, DecodeError> {
    let boot = BootId(r.array("voter's boot")?);
    let serial = r.u64("serial")?;
    let flags = r.u8("vote flags")?;
    let ballot = if flags & 1 == 0 { None } else { Some(parse_ballot(r)?) };
    let table = Digest(r.array("table digest")?);
    let plugin = Digest(r.array("plugin digest")?);
    let opinion = match r.u8("opinion")? {
        0 => Opinion::Pending(r.text(MAX_WHY, "reason")?),
        1 => Opinion::Answered(Digest(r.array("plan digest")?)),
        2 => Opinion::Fault(r.text(MAX_WHY, "reason")?),
        _ => return Err(DecodeError::OutOfRange("opinion")),
    };
    let document_differs = flags & 2 != 0;
    Ok(Vote { boot, serial, ballot, table, plugin, opinion, document_differs, wants: flags & 4 != 0 })
}

fn emit_passed(out: &mut Vec<u8>, passed: &[(NodeId, Vote)]) {
    out.extend_from_slice(&(passed.len() as u16).to_be_bytes());
    for (node, vote) in passed {
        out.extend_from_slice(&node.0);
        emit_vote(out, vote);
    }
}

fn parse_passed(r: &mut Reader<'_>) -> Result<Vec<(NodeId, Vote)>, DecodeError> {
    // A member that passes no votes on ends before.
    let count = if r.is_empty() { 0 } else { usize::from(r.u16("vote count")?) };
    if count > MAX_PASSED {
        return Err(DecodeError::OutOfRange("vote count"));
    }
    (0..count).map(|_| Ok((NodeId(r.array("voter")?), parse_vote(r)?))).collect()
}
