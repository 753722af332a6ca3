//! The cluster document: what all members hold in common beside the table, by decision of an operator: the
//! responsibilities, and the policies in force by digest.
//!
//! It is replaced whole. A new one names the version and digest of the one it was made from, so that two changes made
//! at once are seen as a race: of two documents with one version every member takes the one with the higher digest.
//! Version 0, no document, leaves everything to each member's own configuration.
//!
//! ```text
//! document        format (1) = 1   length (4)   body   [signature (64)]
//! body            version (8)  parent (32)  cluster (1 + n)  responsibilities (4), each as below  policies (1), each
//!                 in a block (2 + n)  ...
//! responsibility  name (1 + n)  replicas (1)  weight (4)  requirements (1), each key (1 + n) value (1 + n)
//! policy          kind (1)  plugin (1 + n)  sha256 (32)  size (4)  pairs (1), each key (1 + n) value (2 + n)  ...
//! ```
//!
//! Numbers are big-endian. Policies stand in the order of their kinds and configuration in the order of its keys, so
//! that equal documents have equal bytes. Documents travel byte for byte; fields behind those known, and policies of kinds
//! not known, are skipped. The digest covers all bytes; the operator's signature covers `"overlan cluster document v1"` and the body.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use overlan_contract::assignment::Responsibility;
use overlan_contract::{Attributes, Kind};
use overlan_wire::codec::{is_printable_text, put_text};
use overlan_wire::limits::{MAX_DOCUMENT, MAX_VERSION};
use overlan_wire::{DecodeError, Digest, DocumentId, Reader};
use sha2::{Digest as _, Sha256};

use crate::plan::{emit_responsibilities, parse_responsibilities};

/// Bytes of the operator's signature.
pub const SIGNATURE: usize = 64;
/// Largest component that a policy may name, in bytes.
pub const MAX_COMPONENT: usize = 32 << 20;
/// Most pairs of a policy's configuration.
pub const MAX_CONFIG_PAIRS: usize = 64;
/// Longest name, key or other short text, in bytes.
pub const MAX_TEXT: usize = 255;
/// Longest value in a policy's configuration, in bytes.
pub const MAX_CONFIG_VALUE: usize = 4_096;
/// All of a policy, in bytes: it must fit its block.
const MAX_POLICY: usize = 32 << 10;
/// Bytes before the body.
const HEAD: usize = 1 + 4;
const FORMAT: u8 = 1;

/// A policy that answers on every member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyChoice {
    /// Which decision.
    pub kind: Kind,
    /// The plugin's name in listings: `builtin:NAME`, or the name of a file.
    pub plugin: String,
    /// SHA-256 of the component.
    pub sha256: Digest,
    /// Bytes of the component.
    pub size: u32,
    /// What the plugin is configured with, by ascending key.
    pub config: Attributes,
}

/// What a document says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// One more than that of the document it was made from.
    pub version: u64,
    /// Digest of the document that it was made from; zero where there was none.
    pub parent: Digest,
    /// The cluster's name: a signed document of one cluster means nothing in another.
    pub cluster: String,
    /// The duties, by distinct names.
    pub responsibilities: Vec<Responsibility>,
    /// By ascending kind, at most one of each; a kind that is not named is left to each member's configuration.
    pub policies: Vec<PolicyChoice>,
}

/// What is wrong with a document, in a sentence that names the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidDocument(pub String);

impl Document {
    /// The signed part.
    ///
    /// # Errors
    /// What is wrong, by field and value.
    pub fn to_body(&self) -> Result<Vec<u8>, InvalidDocument> {
        self.check()?;
        let mut out = Vec::new();
        out.extend_from_slice(&self.version.to_be_bytes());
        out.extend_from_slice(&self.parent.0);
        put_text(&mut out, &self.cluster, MAX_TEXT);
        emit_responsibilities(&mut out, &self.responsibilities);
        emit_policies(&self.policies, &mut out);
        let len = out.len() + HEAD + SIGNATURE;
        if len > MAX_DOCUMENT {
            return Err(InvalidDocument(format!(
                "the document takes {len} bytes of {MAX_DOCUMENT}: list less"
            )));
        }
        Ok(out)
    }

    /// Who answers this kind.
    pub fn policy(&self, kind: Kind) -> Option<&PolicyChoice> {
        self.policies.iter().find(|policy| policy.kind == kind)
    }

    fn check(&self) -> Result<(), InvalidDocument> {
        let bad = |what: String| Err(InvalidDocument(what));
        if self.version == 0 || self.version > MAX_VERSION {
            return bad(format!("version is {}; it must be from 1 to {MAX_VERSION}", self.version));
        }
        text("cluster", &self.cluster, MAX_TEXT)?;
        let duties = &self.responsibilities;
        duties.iter().try_for_each(crate::plan::check_responsibility).map_err(InvalidDocument)?;
        // Made in one go it costs far less than name by name.
        let names: BTreeSet<&str> = duties.iter().map(|duty| duty.name.as_str()).collect();
        if names.len() < duties.len() {
            let mut seen = BTreeSet::new();
            let twice = duties.iter().find(|duty| !seen.insert(&duty.name)).map_or("", |duty| &duty.name);
            return bad(format!("responsibility `{twice}` is listed twice"));
        }
        let most = overlan_contract::assignment::MAX_RESPONSIBILITIES;
        if duties.len() > most {
            return bad(format!(
                "{} responsibilities are listed; a cluster has at most {most}",
                duties.len()
            ));
        }
        if !self.policies.is_sorted_by(|a, b| a.kind < b.kind) {
            return bad(String::from("policy: each kind is named at most once, in the order of the kinds"));
        }
        self.policies.iter().try_for_each(PolicyChoice::check)
    }
}

fn text(what: &str, text: &str, max: usize) -> Result<(), InvalidDocument> {
    if text.len() > max {
        return Err(InvalidDocument(format!("{what} takes {} bytes; at most {max} are allowed", text.len())));
    }
    if !is_printable_text(text) {
        return Err(InvalidDocument(format!("{what} holds a character that cannot be printed")));
    }
    Ok(())
}

impl PolicyChoice {
    fn check(&self) -> Result<(), InvalidDocument> {
        let PolicyChoice { kind, plugin, config, .. } = self;
        text(&format!("policy.{kind}.plugin"), plugin, MAX_TEXT)?;
        let bad = |what: String| Err(InvalidDocument(format!("policy.{kind}{what}")));
        if plugin.is_empty() {
            return bad(String::from(".plugin is empty"));
        }
        if self.size == 0 || self.size as usize > MAX_COMPONENT {
            return bad(format!(
                ": the component has {} bytes; from 1 to {MAX_COMPONENT} are allowed",
                self.size
            ));
        }
        if config.len() > MAX_CONFIG_PAIRS {
            return bad(format!(".config has {} keys; at most {MAX_CONFIG_PAIRS} are allowed", config.len()));
        }
        if !config.is_sorted_by(|(a, _), (b, _)| a < b) {
            return bad(String::from(".config: each key is named once, in ascending order"));
        }
        for (key, value) in config {
            text(&format!("policy.{kind}.config: the key `{key}`"), key, MAX_TEXT)?;
            text(&format!("policy.{kind}.config.{key}"), value, MAX_CONFIG_VALUE)?;
        }
        let mut block = Vec::new();
        emit_policy(self, &mut block);
        if block.len() > MAX_POLICY {
            return bad(format!(".config takes more than {MAX_POLICY} bytes"));
        }
        Ok(())
    }
}

/// Encodes policies that were checked, each in a block of its own.
pub fn emit_policies(policies: &[PolicyChoice], out: &mut Vec<u8>) {
    out.push(policies.len() as u8);
    for policy in policies {
        let at = out.len();
        out.extend_from_slice(&[0, 0]);
        emit_policy(policy, out);
        let len = (out.len() - at - 2) as u16;
        out[at..at + 2].copy_from_slice(&len.to_be_bytes());
    }
}

/// Reads policies, each by itself within the limits; those of unknown kinds are left out.
///
/// # Errors
/// Truncated, or over a limit.
pub fn parse_policies(reader: &mut Reader<'_>) -> Result<Vec<PolicyChoice>, DecodeError> {
    let mut policies = Vec::new();
    for _ in 0..reader.u8("policy count")? {
        let mut block = Reader::new(reader.block("policy")?);
        let kind = usize::from(block.u8("policy kind")?);
        // One of a later release means nothing here; it travels on in the bytes of the document.
        let Some(&kind) = Kind::ALL.get(kind) else { continue };
        if policies.len() == Kind::ALL.len() {
            return Err(DecodeError::OutOfRange("policy count"));
        }
        let policy = parse_policy(kind, &mut block)?;
        policy.check().map_err(|_| DecodeError::OutOfRange("a field of a policy"))?;
        policies.push(policy);
    }
    Ok(policies)
}

fn emit_policy(policy: &PolicyChoice, out: &mut Vec<u8>) {
    out.push(policy.kind as u8);
    put_text(out, &policy.plugin, MAX_TEXT);
    out.extend_from_slice(&policy.sha256.0);
    out.extend_from_slice(&policy.size.to_be_bytes());
    out.push(policy.config.len() as u8);
    for (key, value) in &policy.config {
        put_text(out, key, MAX_TEXT);
        out.extend_from_slice(&(value.len() as u16).to_be_bytes());
        out.extend_from_slice(value.as_bytes());
    }
}

fn parse_policy(kind: Kind, reader: &mut Reader<'_>) -> Result<PolicyChoice, DecodeError> {
    let plugin = reader.text(MAX_TEXT, "plugin")?;
    let sha256 = Digest(reader.array("sha256")?);
    let size = reader.u32("component size")?;
    let mut config = Attributes::new();
    for _ in 0..reader.u8("configuration count")? {
        let key = reader.text(MAX_TEXT, "configuration key")?;
        let value = core::str::from_utf8(reader.block("configuration value")?);
        config.push((key, value.map_err(|_| DecodeError::NotText("configuration value"))?.into()));
    }
    Ok(PolicyChoice { kind, plugin, sha256, size, config })
}

fn parse_body(body: &[u8]) -> Result<Document, DecodeError> {
    let mut reader = Reader::new(body);
    let version = reader.u64("version")?;
    let parent = Digest(reader.array("parent")?);
    let cluster = reader.text(MAX_TEXT, "cluster")?;
    let responsibilities = parse_responsibilities(&mut reader)?;
    let policies = parse_policies(&mut reader)?;
    let document = Document { version, parent, cluster, responsibilities, policies };
    document.check().map_err(|_| DecodeError::OutOfRange("a field of the cluster document"))?;
    Ok(document)
}

/// A document with the bytes it came in. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedDocument {
    document: Arc<Document>,
    id: DocumentId,
    bytes: Bytes,
}

impl SignedDocument {
    /// Puts the operator's signature, where there is one, behind a body that [`Document::to_body`] made.
    ///
    /// # Errors
    /// The body is none.
    pub fn new(body: &[u8], signature: Option<&[u8; SIGNATURE]>) -> Result<Self, DecodeError> {
        let mut bytes = Vec::with_capacity(HEAD + body.len() + SIGNATURE);
        bytes.push(FORMAT);
        bytes.extend_from_slice(&(body.len() as u32).to_be_bytes());
        bytes.extend_from_slice(body);
        signature.into_iter().for_each(|signature| bytes.extend_from_slice(signature));
        Self::parse(bytes.into())
    }

    /// Reads a document. The signature is not checked here.
    ///
    /// # Errors
    /// Truncated, over a limit, or at odds with itself.
    pub fn parse(bytes: Bytes) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_DOCUMENT {
            return Err(DecodeError::OutOfRange("document length"));
        }
        let mut reader = Reader::new(&bytes);
        if reader.u8("document format")? != FORMAT {
            return Err(DecodeError::OutOfRange("document format"));
        }
        let len = reader.u32("document length")? as usize;
        let document = parse_body(reader.take(len, "document body")?)?;
        if !matches!(reader.rest().len(), 0 | SIGNATURE) {
            return Err(DecodeError::Trailing(reader.rest().len()));
        }
        let id = DocumentId { version: document.version, digest: digest(&bytes) };
        Ok(SignedDocument { document: Arc::new(document), id, bytes })
    }

    /// What it says.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Its version and digest.
    pub fn id(&self) -> DocumentId {
        self.id
    }

    /// The bytes as they travel.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What the signature covers, and the signature.
    pub fn signed_part(&self) -> Option<(Vec<u8>, [u8; SIGNATURE])> {
        let (rest, signature) = self.bytes.split_last_chunk::<SIGNATURE>()?;
        let body = rest.get(HEAD..)?;
        let signed = self.bytes.get(1..HEAD) == Some(&(body.len() as u32).to_be_bytes()[..]);
        signed.then(|| (signed_text(body), *signature))
    }
}

/// The digest of a document's bytes, whatever they say.
pub fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::new_with_prefix("overlan cluster document v1").chain_update(bytes).finalize().into())
}

/// What an operator signs of a body.
pub fn signed_text(body: &[u8]) -> Vec<u8> {
    [b"overlan cluster document v1", body].concat()
}
