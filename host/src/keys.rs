//! `overlan keys`.

use anyhow::anyhow;
use overlan_node::client::path_segment;
use overlan_node::{KeyView, MAX_KEY_FILE, read_bounded};

use crate::args::{KeysArgs, KeysCommand, Query};
use crate::list::control;
use crate::table::{Table, print_json};

pub(crate) async fn run(args: &KeysArgs) -> anyhow::Result<()> {
    match &args.command {
        KeysCommand::List(query) => {
            let keys: Vec<KeyView> = control(&query.socket)?.get("/v1/keys").await?;
            print(query, &keys)
        }
        KeysCommand::Add { file, query } => {
            // The node says what is wrong with it.
            let text = read_bounded(file, MAX_KEY_FILE).map_err(|error| {
                anyhow!("{}: {error}; name a file that `overlan keygen --out` made", file.display())
            })?;
            change(query, "/v1/keys", text).await
        }
        KeysCommand::Promote { id, query } => {
            change(query, &format!("/v1/keys/{}/promote", path_segment(id)), Vec::new()).await
        }
        KeysCommand::Retire { id, query } => {
            let keys: Vec<KeyView> =
                control(&query.socket)?.delete(&format!("/v1/keys/{}", path_segment(id))).await?;
            print(query, &keys)
        }
        KeysCommand::Reload(query) => change(query, "/v1/keys/reload", Vec::new()).await,
    }
}

async fn change(query: &Query, path: &str, body: Vec<u8>) -> anyhow::Result<()> {
    let keys: Vec<KeyView> = control(&query.socket)?.post(path, "text/plain", body).await?;
    print(query, &keys)
}

fn print(query: &Query, keys: &[KeyView]) -> anyhow::Result<()> {
    if query.json.json {
        return print_json(&keys);
    }
    let mut table = Table::new(&["id", ""]);
    for key in keys {
        table.row([key.id.as_str(), if key.active { "active" } else { "accepted" }]);
    }
    table.print()
}
