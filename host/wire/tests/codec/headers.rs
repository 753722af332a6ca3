//! The clear header.

use overlan_wire::limits::VERSION;
use overlan_wire::packet::{CLUSTER_HEADER, DATA_HEADER};
use overlan_wire::{DecodeError, Header, Kind, Reader};
use proptest::prelude::*;

use crate::arbitrary::header;

proptest! {
    #[test]
    fn what_is_written_is_read_back(header in header(), sealed: Vec<u8>) {
        let mut bytes = Vec::new();
        header.emit(&mut bytes);
        let length = if matches!(header.kind, Kind::Data { .. }) { DATA_HEADER } else { CLUSTER_HEADER };
        prop_assert_eq!(bytes.len(), length);
        bytes.extend_from_slice(&sealed);
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(Header::parse(&mut reader), Ok(header));
        prop_assert_eq!(reader.rest(), &sealed[..]);
    }

    #[test]
    fn a_cut_header_is_truncated(header in header(), cut: prop::sample::Index) {
        let mut bytes = Vec::new();
        header.emit(&mut bytes);
        let bytes = &bytes[..cut.index(bytes.len())];
        let truncated = matches!(Header::parse(&mut Reader::new(bytes)), Err(DecodeError::Truncated(_)));
        prop_assert!(truncated);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        let _ = Header::parse(&mut Reader::new(&bytes));
    }

    #[test]
    fn another_version_is_told_as_such(header in header(), version: u8) {
        prop_assume!(version != VERSION);
        let mut bytes = Vec::new();
        header.emit(&mut bytes);
        bytes[0] = version;
        prop_assert_eq!(Header::parse(&mut Reader::new(&bytes)), Err(DecodeError::Version(version)));
    }
}
