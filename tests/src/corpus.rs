//! Bytes that members of earlier versions sent, kept as hexadecimal text.
//!
//! `corpus/v1/KIND/NAME.hex` holds the bytes, `NAME.txt` beside it what they mean. A cluster is
//! upgraded one member at a time: bytes once released never change, and every later version reads them.
//! `cargo run -p overlan-tests --example corpus` adds what is missing.

use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;

use overlan_wire::frame::Frames;
use overlan_wire::{Frame, Header, Reader, SignedRecord};

/// What a file's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The clear header of a datagram.
    Header,
    /// An opened packet: frames.
    Packet,
    /// A signed record of the table.
    Record,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 3] = [Kind::Header, Kind::Packet, Kind::Record];

    /// Folder of its files.
    pub fn folder(self) -> PathBuf {
        let name = match self {
            Kind::Header => "header",
            Kind::Packet => "packet",
            Kind::Record => "record",
        };
        crate::package().join("corpus/v1").join(name)
    }

    /// What bytes mean, as text.
    ///
    /// # Errors
    /// The decoder's.
    pub fn meaning(self, bytes: &[u8]) -> Result<String, overlan_wire::DecodeError> {
        fn text(value: impl Debug) -> String {
            format!("{value:#?}\n")
        }
        match self {
            Kind::Header => Header::parse(&mut Reader::new(bytes)).map(text),
            Kind::Packet => Frames::new(bytes).collect::<Result<Vec<_>, _>>().map(text),
            Kind::Record => SignedRecord::parse(bytes).map(|signed| text(&signed.record)),
        }
    }

    /// The bytes that this version writes for what it read.
    ///
    /// # Errors
    /// The decoder's.
    pub fn rewritten(self, bytes: &[u8]) -> Result<Vec<u8>, overlan_wire::DecodeError> {
        let mut out = Vec::new();
        match self {
            Kind::Header => Header::parse(&mut Reader::new(bytes))?.emit(&mut out),
            Kind::Packet => {
                let frames: Vec<Frame<'_>> = Frames::new(bytes).collect::<Result<_, _>>()?;
                frames.iter().for_each(|frame| frame.emit(&mut out));
            }
            Kind::Record => out.extend_from_slice(SignedRecord::parse(bytes)?.bytes()),
        }
        Ok(out)
    }

    /// All files: name and bytes.
    ///
    /// # Panics
    /// Where the folder cannot be read, or a file is not hexadecimal.
    pub fn files(self) -> Vec<(PathBuf, Vec<u8>)> {
        let listed = fs::read_dir(self.folder()).expect("the corpus lies beside the tests");
        let mut paths: Vec<PathBuf> = listed.map(|entry| entry.expect("a file").path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "hex"));
        paths.sort();
        let read = |path: PathBuf| {
            let text = fs::read_to_string(&path).expect("text");
            let bytes = from_hex(&text).unwrap_or_else(|| panic!("{} is not hexadecimal", path.display()));
            (path, bytes)
        };
        paths.into_iter().map(read).collect()
    }
}

/// Bytes as lines of hexadecimal digits.
pub fn to_hex(bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    bytes.chunks(32).map(line).collect()
}

/// Bytes of hexadecimal digits; white space is passed over.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u32> =
        text.split_whitespace().flat_map(str::chars).map(|c| c.to_digit(16)).collect::<Option<_>>()?;
    digits
        .len()
        .is_multiple_of(2)
        .then(|| digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}
