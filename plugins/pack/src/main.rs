//! Turns built policies into components.
//!
//! `overlan-pack encode MODULE COMPONENT` is for authors: it encodes one core module. `overlan-pack dist`
//! is for `plugins/build`: it packs all policies of the repository, and writes or checks `plugins/dist`.
//!
//! Reading order: [`component`] (encoding, and the proof that a component has no import but the log), [`dist`]
//! (manifest and table of the shipped ones).

mod component;
mod dist;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about, version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Encode a core module, built for wasm32-unknown-unknown with the SDK, as a component.
    Encode {
        /// The core module.
        module: PathBuf,
        /// Where to write the component.
        component: PathBuf,
    },
    /// Pack the policies of the repository.
    Dist(dist::Options),
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Encode { module, component } => {
            let bytes = fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
            let packed = component::encode(&bytes).with_context(|| format!("{}", module.display()))?;
            fs::write(&component, &packed.bytes)
                .with_context(|| format!("cannot write {}", component.display()))?;
            println!("{}: {} policy, {} bytes", component.display(), packed.kind, packed.bytes.len());
            Ok(ExitCode::SUCCESS)
        }
        Command::Dist(options) => options.run(),
    }
}
