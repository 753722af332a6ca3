//! Putting a document in force, on every member or on none.

use std::time::Duration;

use overlan_core::document::{Document, SignedDocument};
use overlan_core::{ApplyError, DocumentId, Event};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Applied, ApplyFailure, Content, DocumentView, compose};
use crate::driver::NodeCore;
use crate::handle::{NodeHandle, Stopped};
use crate::rollout::{Undertaking, prepare_everywhere};

/// How long an answer waits for all members to hold the document.
const AGREEMENT: Duration = Duration::from_secs(10);
/// And then for the disk.
const STORING: Duration = Duration::from_secs(5);

impl NodeHandle {
    /// The cluster document.
    ///
    /// # Errors
    /// The node has stopped.
    pub async fn document(&self) -> Result<DocumentView, Stopped> {
        let cluster = self.config().cluster.clone();
        self.inspect(move |core, _| {
            let id = core.document_id();
            let nothing = || Content::of_duties(0, &core.responsibilities());
            DocumentView {
                version: id.version,
                digest: id.digest.to_string(),
                cluster,
                agreed: core.document_agreed(),
                settled: core.responsibilities_settled(),
                signed: core.document().is_some_and(|document| document.signed_part().is_some()),
                content: core.document().map_or_else(nothing, |document| Content::of(document.document())),
            }
        })
        .await
    }

    /// Puts a document in force on every member: what `content` says, made from the version that it names, else from
    /// the one in force. What is in force already stays, under its version. Returns when all live members hold it, or
    /// after some ten seconds, and when it is on the disk here or cannot be.
    ///
    /// # Errors
    /// See [`ApplyFailure`]; nothing changed.
    pub async fn apply(&self, content: &Content) -> Result<Applied, ApplyFailure> {
        let held = |core: &mut NodeCore, _| {
            (core.document_id(), core.document().map(|held| held.document().clone()))
        };
        let (in_force, held) = self.inspect(held).await?;
        let document = compose(content, &self.config().cluster, in_force, None)?;
        let new = document.document();
        if held.is_some_and(|held| says_the_same(&held, new)) {
            return self.wait_held(in_force, Vec::new(), self.watch()).await;
        }
        if let Some(based_on) = content.version.filter(|version| *version != in_force.version) {
            return Err(ApplyError::Raced { in_force, based_on }.into());
        }
        self.apply_document(document).await
    }

    /// As [`apply`](Self::apply), of a document that [`compose`] made and an operator signed.
    ///
    /// # Errors
    /// See [`ApplyFailure`]; nothing changed.
    pub async fn apply_document(&self, document: SignedDocument) -> Result<Applied, ApplyFailure> {
        let events = self.watch();
        // Nothing comes of it on any member where this fails, or its caller stops waiting.
        let undertaking = prepare_everywhere(self, &document).await?;
        // In force and settled at once: a caller that stops waiting between the two would have all members prepare
        // again. What comes to nothing ends here: it may be large.
        let apply = move |core: &mut NodeCore, now| {
            let signed = |document: &SignedDocument| document.signed_part().is_some();
            let unchanged = |held: &&SignedDocument| {
                undertaking.is_none()
                    && signed(held) == signed(&document)
                    && says_the_same(held.document(), document.document())
            };
            if let Some(held) = core.document().filter(unchanged) {
                return Ok((held.id(), Vec::new()));
            }
            match core.apply_document(now, document) {
                Ok(id) => Ok((id, undertaking.map(Undertaking::settle).unwrap_or_default())),
                Err(error) => Err((error, undertaking)),
            }
        };
        let (id, without) = self.inspect(apply).await?.map_err(|(error, _)| error)?;
        self.wait_held(id, without, events).await
    }

    /// Until all live members hold a document, or for some ten seconds, and it is on the disk here or cannot be.
    async fn wait_held(
        &self,
        id: DocumentId,
        without: Vec<String>,
        mut events: Receiver<Event>,
    ) -> Result<Applied, ApplyFailure> {
        let until = Instant::now() + AGREEMENT;
        loop {
            let (agreed, missing) = match self.inspect(move |core, _| progress(core, id)).await? {
                Progress::Agreed => (true, Vec::new()),
                Progress::Missing(members) => (false, members),
                Progress::Overtaken => return Err(ApplyFailure::Overtaken(id.version)),
            };
            let timed_out = agreed || {
                let next = timeout_at(until, async {
                    loop {
                        match events.recv().await {
                            Ok(Event::Document(_) | Event::DocumentAgreed(_)) | Err(RecvError::Lagged(_)) => {
                                break;
                            }
                            Ok(_) => {}
                            Err(RecvError::Closed) => std::future::pending().await,
                        }
                    }
                });
                next.await.is_err()
            };
            if timed_out {
                // The others have it as well, or will; what was applied here outlives a restart of all.
                let unstored = self.wait_stored(id).await;
                let digest = id.digest.to_string();
                return Ok(Applied { version: id.version, digest, agreed, missing, without, unstored });
            }
        }
    }

    /// Until a document is on the disk here; why it is not.
    async fn wait_stored(&self, id: DocumentId) -> Option<String> {
        let mut stored = self.shared.stored.clone();
        match timeout(STORING, stored.wait_for(|stored| stored.id >= id)).await {
            Ok(Ok(stored)) => stored.problem.clone(),
            // The node stops.
            Ok(Err(_)) => None,
            Err(_) => Some("the disk of state_dir does not answer".to_owned()),
        }
    }
}

/// Whether it makes no difference which of two documents is in force.
fn says_the_same(one: &Document, other: &Document) -> bool {
    one.responsibilities == other.responsibilities && one.policies == other.policies
}

/// How far a document got.
enum Progress {
    /// All live members hold it, or one that was made from it.
    Agreed,
    /// Members of these names may not hold it yet.
    Missing(Vec<String>),
    /// Another took its place that was not made from it.
    Overtaken,
}

fn progress(core: &NodeCore, id: DocumentId) -> Progress {
    let held = core.document_id();
    let parent = core.document().map(|document| document.document()).map(|Document { parent, .. }| *parent);
    // A document still later was made from one that was in force: whose, is not told any more.
    let follows =
        held.version > id.version + 1 || held.version == id.version + 1 && parent == Some(id.digest);
    if follows || held == id && core.document_agreed() {
        return Progress::Agreed;
    }
    if held != id {
        return Progress::Overtaken;
    }
    Progress::Missing(missing(core))
}

/// Live members that may not hold the document.
fn missing(core: &NodeCore) -> Vec<String> {
    core.document_missing().into_iter().map(|id| core.name_of(id)).collect()
}
