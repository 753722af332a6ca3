//! `overlan keygen`.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, anyhow};

use overlan_node::{Digest, OperatorKey, random};

use crate::args::KeygenArgs;

pub(crate) fn run(args: &KeygenArgs) -> anyhow::Result<()> {
    let operator = args.operator.then(|| OperatorKey::generate(random()));
    let text = match &operator {
        Some(key) => key.to_text().to_string(),
        None => overlan_node::new_cluster_key(),
    };
    if let Some(key) = &operator {
        eprintln!("tell every member: [cluster] operator_key = \"{}\"", Digest(key.public()));
    }
    let Some(path) = &args.out else {
        std::io::stdout().write_all(text.as_bytes())?;
        return Ok(());
    };
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = opened.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            anyhow!("{}: a key is never written over another file; choose another name", path.display())
        }
        _ => anyhow!("{}: {error}", path.display()),
    })?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| path.display().to_string())?;
    if operator.is_some() {
        eprintln!("wrote {}; it is a secret that no member needs", path.display());
        return Ok(());
    }
    eprintln!(
        "wrote {}; copy it to every member (it is a secret), and name it as [cluster] key_file",
        path.display()
    );
    Ok(())
}
