//! The cluster document as operators see it: text in, text out. What it is and how it spreads is the core's.

mod apply;
mod store;
mod text;

use overlan_core::document::{Document, InvalidDocument, SignedDocument, signed_text};
use overlan_core::{ApplyError, DocumentId};
use overlan_seal::OperatorKey;
use serde::{Deserialize, Serialize};

use crate::handle::Stopped;

pub(crate) use store::{Stored, keep as keep_stored};
pub use text::{Content, DocumentError, Pairs, PolicyText};

/// The cluster document held by a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DocumentView {
    /// 0: none was applied; the members' own configuration stands.
    pub version: u64,
    /// SHA-256 over its bytes.
    pub digest: String,
    /// The cluster's name.
    pub cluster: String,
    /// Whether all live members hold it.
    pub agreed: bool,
    /// Whether it carries an operator's signature.
    pub signed: bool,
    /// Whether `content` is known to be what all members go by. Else there is neither a document nor a plan yet, and it
    /// is this member's own configuration.
    pub settled: bool,
    /// What it says; under version 0, the responsibilities of the plan in force.
    pub content: Content,
}

/// What became of a document that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Its version.
    pub version: u64,
    /// SHA-256 over its bytes.
    pub digest: String,
    /// Whether all live members hold it already.
    pub agreed: bool,
    /// Names of live members that have not said yet that they hold it; none once all do.
    #[serde(default)]
    pub missing: Vec<String>,
    /// Members that went away while the others made its policies ready; they do so when they come back.
    #[serde(default)]
    pub without: Vec<String>,
    /// Why it is not on the disk of the member that was asked, where that is so: a restart of all members would lose it.
    #[serde(default)]
    pub unstored: Option<String>,
}

/// Why a document was not applied. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyFailure {
    /// It says what it may not.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// It breaks a limit.
    #[error(transparent)]
    Invalid(#[from] InvalidDocument),
    /// It was refused.
    #[error(transparent)]
    Refused(#[from] ApplyError),
    /// Another document of the same version was applied at the same time at another member, and won.
    #[error(
        "the race is lost: another document of version {0} was applied at the same time and is in force; look at it \
         with `overlan get` and apply again"
    )]
    Overtaken(u64),
    /// A component that it names is not here.
    #[error(
        "policy.{0}: this node has no component of that sha256; `overlan policy push {0} FILE` distributes it"
    )]
    NoComponent(overlan_contract::Kind),
    /// A member cannot use a component.
    #[error("{member}: {why}; nothing changed on any member")]
    Member {
        /// Its name.
        member: String,
        /// Why.
        why: String,
    },
    /// The node has stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// A document of this content, made from the document `from` of a cluster.
///
/// # Errors
/// What is wrong, by field and value.
pub fn compose(
    content: &Content,
    cluster: &str,
    from: DocumentId,
    operator: Option<&OperatorKey>,
) -> Result<SignedDocument, ApplyFailure> {
    let document = Document {
        version: from.version + 1,
        parent: from.digest,
        cluster: cluster.to_owned(),
        responsibilities: content.responsibilities()?,
        policies: content.policies()?,
    };
    let body = document.to_body()?;
    let signature = operator.map(|key| key.sign(&signed_text(&body)));
    SignedDocument::new(&body, signature.as_ref()).map_err(|error| InvalidDocument(error.to_string()).into())
}
