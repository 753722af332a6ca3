//! `overlan apply` and `overlan get`.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, anyhow, ensure};
use overlan_node::document::{Applied, Content, DocumentView, compose};
use overlan_node::{DocumentId, OperatorKey, read_bounded};

use crate::args::Query;
use crate::list::control;
use crate::progress::waiting;
use crate::table::{out, print_json, unread};

/// Bytes of a document's text at most; what `overlan get` prints of the largest document has fewer.
const MAX_TEXT: usize = 8 << 20;
/// Bytes of an operator's key file at most.
const MAX_KEY: usize = 64 << 10;
/// What a document that is sent to a member waits for.
const ROUND: &str = "the members fetch and try what the document names";
/// Told by `--help` of what puts a document in force.
pub(crate) const EXIT_STATUS: &str = "Exit status: 0 in force, and all live members hold it; 1 refused, and nothing changed; \
                                      2 bad usage; 3 in force, but not all live members have confirmed it within 10 s, or the one \
                                      that was asked cannot store it.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_STATUS)]
pub(crate) struct ApplyArgs {
    /// TOML or JSON with [[responsibility]] and [policy.KIND], as `overlan get` prints it; `-` is standard input. The text may have 8 MiB, and
    /// what it says 1 MiB as members pass it on (names, attributes and configuration, without what TOML adds)
    file: PathBuf,
    /// Sign it with the operator's key, which `overlan keygen --operator` made
    #[arg(long, value_name = "KEYFILE")]
    sign: Option<PathBuf>,
    #[command(flatten)]
    query: Query,
}

/// Exit status where a document is in force, and not all live members have confirmed yet that they hold it, or a restart
/// of all would lose it.
const NOT_CONFIRMED: u8 = 3;

pub(crate) async fn apply(args: &ApplyArgs) -> anyhow::Result<ExitCode> {
    let text = read_text(&args.file)?;
    let content = Content::parse(&text).with_context(|| args.file.display().to_string())?;
    let applied = submit(&content, args.sign.as_deref(), &args.query).await?;
    report(&applied, &args.query)
}

pub(crate) async fn get(query: &Query) -> anyhow::Result<()> {
    let view: DocumentView = control(&query.socket)?.get("/v1/document").await?;
    if query.json.json {
        return print_json(&view.content);
    }
    let mut out = std::io::stdout().lock();
    match view.version {
        0 => writeln!(out, "# None was applied: this member's own configuration stands.")?,
        _ => {
            writeln!(out, "# {} (all hold it: {})", view.digest, if view.agreed { "yes" } else { "not yet" })?
        }
    }
    out.write_all(view.content.to_toml().as_bytes())?;
    Ok(())
}

/// The text of a document.
fn read_text(path: &Path) -> anyhow::Result<String> {
    let read = match path.as_os_str() == "-" {
        true => {
            let mut bytes = Vec::new();
            std::io::stdin().take(MAX_TEXT as u64 + 1).read_to_end(&mut bytes).map(|_| bytes)
        }
        false => read_bounded(path, MAX_TEXT),
    };
    let shown = path.display();
    let bytes = read.map_err(|error| {
        anyhow!("{shown}: {error}; name a file such as `overlan get` prints, or `-` for standard input")
    })?;
    ensure!(
        bytes.len() <= MAX_TEXT,
        "{shown}: a document's text has at most {} MiB; list less",
        MAX_TEXT >> 20
    );
    String::from_utf8(bytes)
        .map_err(|_| anyhow!("{shown}: a document is text in UTF-8, as `overlan get` prints it"))
}

/// Has the node put a document in force, signed here where there is a key.
pub(crate) async fn submit(content: &Content, sign: Option<&Path>, query: &Query) -> anyhow::Result<Applied> {
    let control = control(&query.socket)?;
    let Some(path) = sign else {
        let body = serde_json::to_vec(content)?;
        return Ok(waiting(ROUND, control.post("/v1/document", "application/json", body)).await?);
    };
    let key = read_key(path)?;
    let view: DocumentView = control.get("/v1/document").await?;
    let version = content.version.unwrap_or(view.version);
    ensure!(
        version == view.version,
        "the race is lost: version {} is in force, and this change was made from version {version}; look at it with \
         `overlan get` and apply again",
        view.version
    );
    let from = DocumentId { version, digest: view.digest.parse()? };
    let document = compose(content, &view.cluster, from, Some(&key))?;
    let body = document.bytes().clone();
    Ok(waiting(ROUND, control.post("/v1/document", "application/octet-stream", body)).await?)
}

fn read_key(path: &Path) -> anyhow::Result<OperatorKey> {
    let bytes = zeroize::Zeroizing::new(read_bounded(path, MAX_KEY).map_err(|error| {
        anyhow!("{}: {error}; name the key that `overlan keygen --operator` made", path.display())
    })?);
    OperatorKey::parse(&String::from_utf8_lossy(&bytes)).with_context(|| path.display().to_string())
}

/// Tells what came of it; the exit status says whether all live members hold it.
pub(crate) fn report(applied: &Applied, query: &Query) -> anyhow::Result<ExitCode> {
    unread(print(applied, query.json.json))?;
    if let Some(why) = &applied.unstored {
        eprintln!("overlan: version {} is in force, and not stored: {why}", applied.version);
    }
    if applied.agreed {
        return Ok(if applied.unstored.is_some() { NOT_CONFIRMED.into() } else { ExitCode::SUCCESS });
    }
    let missing = match &applied.missing[..] {
        [] => "not all live members have".to_owned(),
        [one] => format!("{one} has not"),
        [most @ .., last] => format!("{} and {last} have not", most.join(", ")),
    };
    eprintln!(
        "overlan: version {} is in force here and on its way to all, but {missing} said so in time: `overlan status` \
         tells when all hold it, and what is in the way",
        applied.version
    );
    Ok(ExitCode::from(NOT_CONFIRMED))
}

fn print(applied: &Applied, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(applied);
    }
    let agreed =
        if applied.agreed { "all live members hold it" } else { "not all live members have said so" };
    out!("version {} is in force ({agreed}), digest {}", applied.version, applied.digest);
    if !applied.without.is_empty() {
        out!("went away before they were ready: {}", applied.without.join(", "));
    }
    Ok(())
}
