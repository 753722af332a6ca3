//! The cluster document on the disk: written off the driver's thread, which a slow disk would keep from answering probes.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use overlan_core::DocumentId;
use overlan_core::document::SignedDocument;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::state::write_private;

/// A document that could not be written is tried again after this long.
const RETRY: Duration = Duration::from_secs(3);

/// What became of the last document to be written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    /// Which it was.
    pub(crate) id: DocumentId,
    /// Why it is not on the disk.
    pub(crate) problem: Option<String>,
}

impl Stored {
    /// What the disk had at the start.
    pub(crate) fn loaded(document: Option<&SignedDocument>) -> Self {
        Stored { id: document.map(SignedDocument::id).unwrap_or_default(), problem: None }
    }
}

/// Writes the newest document whenever there is another, until the sender is gone and the last one was tried.
pub(crate) async fn keep(
    path: PathBuf,
    mut newest: watch::Receiver<Option<SignedDocument>>,
    stored: watch::Sender<Stored>,
) {
    loop {
        let failed = stored.borrow().problem.is_some();
        let patience = if failed { RETRY } else { Duration::MAX };
        if let Ok(Err(_)) = timeout(patience, newest.changed()).await {
            return;
        }
        let Some(document) = newest.borrow_and_update().clone() else { continue };
        let id = document.id();
        let target = path.clone();
        let written = spawn_blocking(move || write_private(&target, document.bytes())).await;
        let problem = written.unwrap_or_else(|error| Err(io::Error::other(error))).err().map(|error| {
            format!(
                "version {} of the cluster document cannot be stored, and is lost with a restart of all members: {}: \
                 {error}; make room, or the folder writable; trying again",
                id.version,
                path.display()
            )
        });
        if let Some(problem) = &problem {
            tracing::error!("{problem}");
        }
        stored.send_replace(Stored { id, problem });
    }
}

#[cfg(test)]
mod tests {
    use overlan_core::document::Document;
    use overlan_wire::Digest;

    use super::*;

    fn document(version: u64) -> SignedDocument {
        let (responsibilities, policies) = (Vec::new(), Vec::new());
        let parent = Digest::default();
        let document = Document { version, parent, cluster: "prod".into(), responsibilities, policies };
        SignedDocument::new(&document.to_body().expect("it is valid"), None).expect("just made")
    }

    #[tokio::test]
    async fn the_newest_is_written_and_one_that_is_not_is_a_problem_and_tried_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state").join("document");
        let (newest, receiver) = watch::channel(None);
        let (sender, mut stored) = watch::channel(Stored::default());
        let keeper = tokio::spawn(keep(path.clone(), receiver, sender));
        newest.send_replace(Some(document(1)));
        let failed = stored.wait_for(|stored| stored.problem.is_some()).await.expect("it runs").clone();
        assert_eq!(failed.id, document(1).id());
        std::fs::create_dir(path.parent().expect("it has one")).expect("a folder");
        stored.wait_for(|stored| stored.problem.is_none()).await.expect("it runs");
        assert_eq!(std::fs::read(&path).expect("it was written"), document(1).bytes()[..]);
        // What came last is written even where the driver is gone by then.
        newest.send_replace(Some(document(2)));
        newest.send_replace(Some(document(3)));
        drop(newest);
        keeper.await.expect("it ends");
        assert_eq!(std::fs::read(&path).expect("it was written"), document(3).bytes()[..]);
    }
}
