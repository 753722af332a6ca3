//! The addresses of the other members on the disk, for the next start: `last-known` in the state directory, a line each with
//! the member's id, and `left` where it said farewell.

use std::path::PathBuf;
use std::time::Duration;

use overlan_core::LastKnown;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::state::write_private;

/// What comes within this time of each other is written once.
const PAUSE: Duration = Duration::from_secs(1);
/// Written behind the address of a member that said farewell.
const LEFT: &str = "left";

/// What a file says.
///
/// # Errors
/// The number of the first line that says something else.
pub(crate) fn parse(text: &str) -> Result<Vec<LastKnown>, usize> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (address, id) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        let left = match words.next() {
            None => false,
            Some(word) => (word == LEFT).then_some(true)?,
        };
        words.next().is_none().then_some(LastKnown { id, address, left })
    };
    let lines = (1..).zip(text.lines()).filter(|(_, text)| !text.trim().is_empty());
    lines.map(|(number, text)| line(text).ok_or(number)).collect()
}

fn text(known: &[LastKnown]) -> String {
    let line = |last: &LastKnown| match last.left {
        true => format!("{} {} {LEFT}\n", last.address, last.id),
        false => format!("{} {}\n", last.address, last.id),
    };
    known.iter().map(line).collect()
}

/// Writes the newest whenever it changed, until the sender is gone and the last was tried.
pub(crate) async fn keep(path: PathBuf, mut newest: watch::Receiver<Vec<LastKnown>>) {
    while newest.changed().await.is_ok() {
        // Sees what comes meanwhile; ends early where the sender is gone.
        let _ = timeout(PAUSE, newest.wait_for(|_| false)).await;
        let text = text(&newest.borrow());
        let target = path.clone();
        let written = spawn_blocking(move || write_private(&target, text.as_bytes())).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(
                "{}: {error}; at the next start this node will know of its seeds only, until the addresses of the \
                 members change again",
                path.display()
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use overlan_wire::NodeId;

    use super::*;

    fn last(address: &str, left: bool) -> LastKnown {
        LastKnown { id: NodeId([7; 16]), address: address.parse().expect("an address"), left }
    }

    #[test]
    fn what_is_written_is_read_and_nonsense_is_refused() {
        let known = [last("10.0.0.2:7400", false), last("[fd00::2]:7400", true)];
        let id = "07".repeat(16);
        assert_eq!(text(&known), format!("10.0.0.2:7400 {id}\n[fd00::2]:7400 {id} left\n"));
        assert_eq!(parse(&format!("\n{}", text(&known))), Ok(known.to_vec()));
        let last = format!("10.0.0.2:7400 {id}");
        for line in
            ["\0\u{fffd}", "10.0.0.2", "10.0.0.2:7400 0", &format!("{last} lost"), &format!("{last} left x")]
        {
            assert_eq!(parse(&format!("{}{line}\n", text(&known))), Err(3), "{line}");
        }
    }

    #[tokio::test]
    async fn the_last_is_written_though_the_sender_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("last-known");
        let (newest, receiver) = watch::channel(Vec::new());
        let keeper = tokio::spawn(keep(path.clone(), receiver));
        newest.send_replace(vec![last("10.0.0.2:7400", false)]);
        let known = vec![last("10.0.0.3:7400", false)];
        newest.send_replace(known.clone());
        drop(newest);
        keeper.await.expect("it ends");
        assert_eq!(parse(&std::fs::read_to_string(&path).expect("it was written")), Ok(known));
    }
}
