//! The canonical encoding of the address table's records.
//!
//! A record is signed by its author and relayed byte for byte: [`SignedRecord`] keeps the bytes it was
//! parsed from, so that fields a newer member added survive an older relay and the signature and
//! the table's digest cover exactly what the author wrote.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::codec::{DecodeError, Reader, put_block, put_ip, put_text};
use crate::ids::{BootId, NodeId, OperatorId};
use crate::limits::{
    MAX_ADAPTERS, MAX_ATTRIBUTES, MAX_GATEWAYS, MAX_NODE_NAME, MAX_RECORD, MAX_TEXT, MAX_VERSION,
};

/// Bytes of the signature at the end of a record.
pub const SIGNATURE: usize = 64;
const FLAG_LEFT: u8 = 1;
const FLAG_OPERATOR: u8 = 2;

/// The owner's word on an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdapterStatus {
    /// It can carry traffic.
    Up,
    /// Administratively down, without carrier, or gone.
    Down,
}

/// One adapter address of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Adapter {
    /// Interface name on its owner.
    pub name: String,
    /// Adapter type as the owner's kernel names it.
    pub kind: String,
    /// Where messages are sent.
    pub address: IpAddr,
    /// UDP port.
    pub port: u16,
    /// Subnet mask as a prefix length.
    pub prefix_length: u8,
    /// Maximum transmission unit in bytes, IP header included.
    pub mtu: u32,
    /// Mbit/s; 0 where unknown.
    pub speed: u32,
    /// Class of service by name; may be empty.
    pub class_of_service: String,
    /// Differentiated services code point, 0..=63.
    pub dscp: u8,
    /// The owner's word.
    pub status: AdapterStatus,
    /// Routers on its link, the preferred first.
    pub gateways: Vec<IpAddr>,
}

/// What a node says of itself. Only the node writes it; each change bumps `version`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The author; the hash of `sign_key`.
    pub id: NodeId,
    /// Its present life.
    pub boot: BootId,
    /// Higher replaces lower.
    pub version: u64,
    /// Unique in the cluster.
    pub name: String,
    /// Ed25519 public key.
    pub sign_key: [u8; 32],
    /// X25519 public key, for data sessions.
    pub exchange_key: [u8; 32],
    /// In order of preference: primary, then alternates.
    pub adapters: Vec<Adapter>,
    /// What responsibilities may require.
    pub attributes: Vec<(String, String)>,
    /// The node left on purpose; it is not a failure.
    pub left: bool,
    /// The operator whose signature it wants under cluster documents; `None`: it takes any.
    pub operator: Option<OperatorId>,
}

/// A member's entry was removed for good, up to a version; a later version brings the member back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// Whose entry.
    pub id: NodeId,
    /// The version it ends.
    pub version: u64,
    /// Ed25519 public key of the member that forgot it.
    pub by_key: [u8; 32],
}

/// One record of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A member.
    Entry(Entry),
    /// A former member.
    Forgotten(Forgotten),
}

impl Record {
    /// The node the record is about.
    pub fn id(&self) -> NodeId {
        match self {
            Record::Entry(entry) => entry.id,
            Record::Forgotten(forgotten) => forgotten.id,
        }
    }

    /// Higher replaces lower; a removal replaces the entry of its own version.
    pub fn precedence(&self) -> (u64, bool) {
        match self {
            Record::Entry(entry) => (entry.version, false),
            Record::Forgotten(forgotten) => (forgotten.version, true),
        }
    }

    /// The key its signature is checked with. For an entry it must hash to the id.
    pub fn author_key(&self) -> &[u8; 32] {
        match self {
            Record::Entry(entry) => &entry.sign_key,
            Record::Forgotten(forgotten) => &forgotten.by_key,
        }
    }

    /// The bytes that are signed.
    ///
    /// # Errors
    /// [`RecordTooLarge`] where they would not fit a membership broadcast.
    pub fn to_unsigned_bytes(&self) -> Result<Vec<u8>, RecordTooLarge> {
        let mut out = Vec::with_capacity(256);
        match self {
            Record::Entry(entry) => emit_entry(entry, &mut out),
            Record::Forgotten(forgotten) => {
                out.push(2);
                out.extend_from_slice(&forgotten.id.0);
                out.extend_from_slice(&forgotten.version.to_be_bytes());
                out.extend_from_slice(&forgotten.by_key);
            }
        }
        if out.len() + SIGNATURE > MAX_RECORD {
            return Err(RecordTooLarge(out.len() + SIGNATURE));
        }
        Ok(out)
    }
}

/// The encoded record would exceed [`MAX_RECORD`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the table entry takes {0} bytes of {MAX_RECORD}: name fewer adapters or shorter attributes")]
pub struct RecordTooLarge(pub usize);

/// A record with the bytes it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRecord {
    /// What the bytes say.
    pub record: Record,
    bytes: Arc<[u8]>,
}

impl SignedRecord {
    /// Puts the author's signature behind the signed bytes.
    pub fn new(record: Record, mut unsigned: Vec<u8>, signature: &[u8; SIGNATURE]) -> Self {
        unsigned.extend_from_slice(signature);
        SignedRecord { record, bytes: unsigned.into() }
    }

    /// Reads a record. The signature is not checked here.
    ///
    /// # Errors
    /// Truncated, over a limit, or not printable text where text belongs.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_RECORD {
            return Err(DecodeError::OutOfRange("record length"));
        }
        let (signed, _) = bytes.split_last_chunk::<SIGNATURE>().ok_or(DecodeError::Truncated("signature"))?;
        let mut reader = Reader::new(signed);
        let record = match reader.u8("record kind")? {
            1 => Record::Entry(parse_entry(&mut reader)?),
            2 => Record::Forgotten(Forgotten {
                id: NodeId(reader.array("node id")?),
                version: parse_version(&mut reader, MAX_VERSION)?,
                by_key: reader.array("author key")?,
            }),
            _ => return Err(DecodeError::OutOfRange("record kind")),
        };
        Ok(SignedRecord { record, bytes: bytes.into() })
    }

    /// The bytes as they travel.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the signature covers, and the signature.
    pub fn signed_part(&self) -> (&[u8], &[u8; SIGNATURE]) {
        self.bytes.split_last_chunk().expect("parse and new put a signature at the end")
    }
}

fn emit_entry(entry: &Entry, out: &mut Vec<u8>) {
    out.push(1);
    out.extend_from_slice(&entry.id.0);
    out.extend_from_slice(&entry.boot.0);
    out.extend_from_slice(&entry.version.to_be_bytes());
    let left = if entry.left { FLAG_LEFT } else { 0 };
    let operator = if entry.operator.is_some() { FLAG_OPERATOR } else { 0 };
    out.push(left | operator);
    put_text(out, &entry.name, MAX_NODE_NAME);
    out.extend_from_slice(&entry.sign_key);
    out.extend_from_slice(&entry.exchange_key);
    let adapters = &entry.adapters[..entry.adapters.len().min(MAX_ADAPTERS)];
    out.push(adapters.len() as u8);
    for adapter in adapters {
        put_block(out, |out| emit_adapter(adapter, out));
    }
    let attributes = &entry.attributes[..entry.attributes.len().min(MAX_ATTRIBUTES)];
    out.push(attributes.len() as u8);
    for (key, value) in attributes {
        put_text(out, key, MAX_TEXT);
        put_text(out, value, MAX_TEXT);
    }
    if let Some(operator) = entry.operator {
        out.extend_from_slice(&operator.0);
    }
}

fn parse_version(reader: &mut Reader<'_>, max: u64) -> Result<u64, DecodeError> {
    let version = reader.u64("version")?;
    if version > max { Err(DecodeError::OutOfRange("version")) } else { Ok(version) }
}

fn parse_entry(reader: &mut Reader<'_>) -> Result<Entry, DecodeError> {
    let id = NodeId(reader.array("node id")?);
    let boot = BootId(reader.array("boot id")?);
    let version = parse_version(reader, MAX_VERSION)?;
    let flags = reader.u8("flags")?;
    let name = reader.text(MAX_NODE_NAME, "name")?;
    if name.is_empty() {
        return Err(DecodeError::OutOfRange("name"));
    }
    let sign_key = reader.array("signature key")?;
    let exchange_key = reader.array("exchange key")?;
    let count = usize::from(reader.u8("adapter count")?);
    if count > MAX_ADAPTERS {
        return Err(DecodeError::OutOfRange("adapter count"));
    }
    let mut adapters = Vec::with_capacity(count);
    for _ in 0..count {
        // What a newer member appended to the block is skipped.
        adapters.push(parse_adapter(&mut Reader::new(reader.block("adapter")?))?);
    }
    let count = usize::from(reader.u8("attribute count")?);
    if count > MAX_ATTRIBUTES {
        return Err(DecodeError::OutOfRange("attribute count"));
    }
    let mut attributes = Vec::with_capacity(count);
    for _ in 0..count {
        attributes.push((reader.text(MAX_TEXT, "attribute key")?, reader.text(MAX_TEXT, "attribute value")?));
    }
    let operator = match flags & FLAG_OPERATOR {
        0 => None,
        _ => Some(OperatorId(reader.array("operator")?)),
    };
    let left = flags & FLAG_LEFT != 0;
    Ok(Entry { id, boot, version, name, sign_key, exchange_key, adapters, attributes, left, operator })
}

fn emit_adapter(adapter: &Adapter, out: &mut Vec<u8>) {
    put_text(out, &adapter.name, MAX_TEXT);
    put_text(out, &adapter.kind, MAX_TEXT);
    put_ip(out, adapter.address);
    out.extend_from_slice(&adapter.port.to_be_bytes());
    out.push(adapter.prefix_length);
    out.extend_from_slice(&adapter.mtu.to_be_bytes());
    out.extend_from_slice(&adapter.speed.to_be_bytes());
    put_text(out, &adapter.class_of_service, MAX_TEXT);
    out.push(adapter.dscp);
    out.push(u8::from(adapter.status == AdapterStatus::Up));
    let gateways = &adapter.gateways[..adapter.gateways.len().min(MAX_GATEWAYS)];
    out.push(gateways.len() as u8);
    for &gateway in gateways {
        put_ip(out, gateway);
    }
}

/// Whether datagrams to the address reach one host: nobody may point the others at a group or a whole
/// subnet, nor name an IPv4 host twice by its IPv4-mapped form.
pub fn is_one_host(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !broadcast && address.to_canonical() == address
}

fn parse_adapter(reader: &mut Reader<'_>) -> Result<Adapter, DecodeError> {
    let name = reader.text(MAX_TEXT, "adapter name")?;
    let kind = reader.text(MAX_TEXT, "adapter kind")?;
    let address = reader.ip("address")?;
    if !is_one_host(address) {
        return Err(DecodeError::OutOfRange("address"));
    }
    let port = reader.u16("port")?;
    if port == 0 {
        return Err(DecodeError::OutOfRange("port"));
    }
    let prefix_length = reader.u8("prefix length")?;
    if prefix_length > if address.is_ipv4() { 32 } else { 128 } {
        return Err(DecodeError::OutOfRange("prefix length"));
    }
    let mtu = reader.u32("mtu")?;
    let speed = reader.u32("speed")?;
    let class_of_service = reader.text(MAX_TEXT, "class of service")?;
    let dscp = reader.u8("dscp")?;
    if dscp > 63 {
        return Err(DecodeError::OutOfRange("dscp"));
    }
    let status = if reader.u8("status")? & 1 == 1 { AdapterStatus::Up } else { AdapterStatus::Down };
    let count = usize::from(reader.u8("gateway count")?);
    if count > MAX_GATEWAYS {
        return Err(DecodeError::OutOfRange("gateway count"));
    }
    let gateways = (0..count).map(|_| reader.ip("gateway")).collect::<Result<_, _>>()?;
    Ok(Adapter {
        name,
        kind,
        address,
        port,
        prefix_length,
        mtu,
        speed,
        class_of_service,
        dscp,
        status,
        gateways,
    })
}
