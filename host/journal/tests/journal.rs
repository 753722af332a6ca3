//! Written, cut, flipped and rotated journals.

use std::fs;
use std::path::Path;

use overlan_contract::{assignment, failover, sizing};
use overlan_journal::{
    CURRENT, DamageKind, Exchange, HEADER, JournalError, PREVIOUS, Record, Writer, encode, read,
};
use proptest::prelude::*;

fn record(number: u64) -> Record {
    let duty = |index| assignment::Responsibility {
        name: format!("duty-{index}"),
        replicas: 1,
        weight_milli: 1_000,
        requires: Vec::new(),
    };
    let exchange = match number % 3 {
        0 => Exchange::Assignment(
            assignment::Question {
                responsibilities: (0..number % 7).map(duty).collect(),
                ..assignment::Question::default()
            },
            Ok(assignment::Answer { owners: vec![vec![1, 2]; 3] }),
        ),
        1 => Exchange::Failover(failover::Question::default(), Err("it trapped".into())),
        _ => Exchange::Failover(
            failover::Question { seed: number, ..failover::Question::default() },
            Ok(failover::Answer {
                order: Vec::new(),
                mode: failover::Mode::Spread(vec![3]),
                timings: Vec::new(),
            }),
        ),
    };
    Record {
        unix_ms: number,
        plugin: "builtin:fast".into(),
        sha256: "00".repeat(32),
        config: vec![("key".into(), "value".into())],
        elapsed_us: 7,
        fuel: number.is_multiple_of(2).then_some(number),
        exchange,
        limits: number.is_multiple_of(5).then(|| ("fuel_base".into(), number)).into_iter().collect(),
        fresh: number.is_multiple_of(3),
    }
}

fn write(folder: &Path, limit: u64, numbers: std::ops::Range<u64>) {
    let mut writer = Writer::open(folder, limit).unwrap();
    for number in numbers {
        writer.append(&encode(&record(number)).unwrap()).unwrap();
    }
}

fn numbers(path: &Path) -> Vec<u64> {
    let journal = read(path).unwrap();
    for found in &journal.records {
        assert_eq!(*found, record(found.unix_ms));
    }
    journal.records.iter().map(|record| record.unix_ms).collect()
}

#[test]
fn what_is_written_is_read() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 1 << 20, 0..20);
    write(folder.path(), 1 << 20, 20..30);
    assert_eq!(numbers(folder.path()), (0..30).collect::<Vec<_>>());
    assert_eq!(numbers(&folder.path().join(CURRENT)).len(), 30);
    assert!(read(folder.path()).unwrap().damage.is_empty());
}

#[test]
fn a_journal_is_bounded_and_keeps_the_latest() {
    let folder = tempfile::tempdir().unwrap();
    let limit = 8 << 10;
    write(folder.path(), limit, 0..1_000);
    let size = |name: &str| fs::metadata(folder.path().join(name)).unwrap().len();
    assert!(size(CURRENT) + size(PREVIOUS) <= limit);
    let kept = numbers(folder.path());
    assert!(kept.len() > 20, "{}", kept.len());
    assert_eq!(kept, (1_000 - kept.len() as u64..1_000).collect::<Vec<_>>());
}

#[test]
fn a_record_above_the_bound_has_a_file_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 10, 0..5);
    assert_eq!(numbers(folder.path()), [3, 4]);
}

#[test]
fn a_killed_writer_loses_the_last_record_at_most() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 1 << 20, 0..10);
    let path = folder.path().join(CURRENT);
    let whole = fs::read(&path).unwrap();
    let last = encode(&record(9)).unwrap().len();
    for cut in 1..last {
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let journal = read(folder.path()).unwrap();
        assert_eq!(journal.records.len(), 9);
        assert_eq!(journal.damage[0].kind, DamageKind::Cut);
        assert_eq!(journal.damage[0].lost_bytes as usize, last - cut);
    }
    write(folder.path(), 1 << 20, 10..12);
    assert_eq!(numbers(folder.path()), [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11]);
    assert!(read(folder.path()).unwrap().damage.is_empty());
}

/// Whenever it is killed while it begins a file: before the header is whole, or between the two moves.
#[test]
fn a_writer_killed_between_two_files_loses_none() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    for length in 0..HEADER.len() {
        write(folder.path(), 1 << 20, 0..3);
        fs::rename(file(CURRENT), file(PREVIOUS)).unwrap();
        fs::write(file(CURRENT), &HEADER[..length]).unwrap();
        write(folder.path(), 1 << 20, 3..5);
        assert_eq!(numbers(folder.path()), [0, 1, 2, 3, 4]);
        fs::rename(file(CURRENT), file(PREVIOUS)).unwrap();
        fs::write(file("next.journal"), &HEADER[..length]).unwrap();
        write(folder.path(), 1 << 20, 5..6);
        assert_eq!(numbers(folder.path()), [3, 4, 5]);
        fs::remove_file(file(CURRENT)).unwrap();
        fs::remove_file(file(PREVIOUS)).unwrap();
    }
}

#[test]
fn a_file_that_cannot_be_begun_costs_no_record() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    write(folder.path(), 1 << 20, 0..3);
    fs::rename(file(CURRENT), file(PREVIOUS)).unwrap();
    write(folder.path(), 1 << 20, 3..6);
    let limit = 2 * fs::metadata(file(CURRENT)).unwrap().len();
    let mut writer = Writer::open(folder.path(), limit).unwrap();
    fs::create_dir(file("next.journal")).unwrap();
    for _ in 0..3 {
        let error = writer.append(&encode(&record(6)).unwrap()).unwrap_err();
        assert!(error.to_string().contains("next.journal"), "{error}");
        assert_eq!(numbers(folder.path()), [0, 1, 2, 3, 4, 5]);
    }
    fs::remove_dir(file("next.journal")).unwrap();
    writer.append(&encode(&record(6)).unwrap()).unwrap();
    assert_eq!(numbers(folder.path()), [3, 4, 5, 6]);
}

#[test]
fn a_file_damaged_in_its_midst_is_kept_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let second = HEADER.len() + encode(&record(0)).unwrap().len();
    // Its payload, a length that no record has, and one that reaches behind the end.
    for (at, bit) in [(second + 20, 1), (second + 3, 0x80), (second + 1, 0x80)] {
        write(folder.path(), 1 << 20, 0..5);
        let mut bytes = fs::read(file(CURRENT)).unwrap();
        bytes[at] ^= bit;
        fs::write(file(CURRENT), &bytes).unwrap();
        write(folder.path(), 1 << 20, 5..6);
        assert_eq!(fs::read(file(PREVIOUS)).unwrap(), bytes);
        assert_eq!(numbers(folder.path()), [0, 2, 3, 4, 5], "only what is damaged is lost");
        fs::remove_file(file(CURRENT)).unwrap();
    }
}

#[test]
fn a_reader_misses_no_file_that_is_begun_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 40_000, 0..300);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| write(folder.path(), 40_000, 300..20_000));
        let mut last = 0;
        while !writing.is_finished() {
            let found = numbers(folder.path());
            let (first, end) = (found[0], found[found.len() - 1]);
            assert_eq!(found, (first..=end).collect::<Vec<_>>(), "nothing is missing in between");
            assert!(end >= last);
            last = end;
        }
    });
}

#[test]
fn damage_is_told() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 1 << 20, 0..3);
    let path = folder.path().join(CURRENT);
    let whole = fs::read(&path).unwrap();
    let second = HEADER.len() + encode(&record(0)).unwrap().len();
    let length = encode(&record(1)).unwrap().len();
    let damage = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        let journal = read(&path).unwrap();
        assert_eq!(journal.records, [record(0), record(2)]);
        assert_eq!((journal.damage.len(), journal.damage[0].lost_bytes), (1, length as u64));
        journal.damage[0].clone()
    };
    assert_eq!(damage(&|bytes| bytes[second + 20] ^= 1).kind, DamageKind::Checksum);
    assert_eq!(damage(&|bytes| bytes[second + 3] = 0xff).kind, DamageKind::Length);
    assert_eq!(damage(&|bytes| bytes[second + 1] ^= 0x80).kind, DamageKind::Cut);
    assert_eq!(damage(&|bytes| bytes[second..second + length].fill(0)).kind, DamageKind::Checksum);
    let said = damage(&|bytes| bytes[second + 20] ^= 1).to_string();
    assert!(said.contains("wrong checksum") && said.contains("behind 1 whole ones"), "{said}");
}

#[test]
fn what_is_damaged_costs_itself_alone() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 1 << 20, 0..40);
    let path = folder.path().join(CURRENT);
    let mut bytes = fs::read(&path).unwrap();
    let mut starts = vec![HEADER.len()];
    for number in 0..40 {
        starts.push(starts[number as usize] + encode(&record(number)).unwrap().len());
    }
    assert_eq!(starts[40], bytes.len());
    // A flipped bit, two in a row, one whose length reaches into the next, a hole, and the last one.
    bytes[starts[3] + 15] ^= 4;
    bytes[starts[7] + 30] ^= 1;
    bytes[starts[8] + 5] ^= 1;
    bytes[starts[12]] ^= 0x40;
    bytes.drain(starts[20] + 9..starts[22] + 5);
    bytes.pop();
    fs::write(&path, &bytes).unwrap();
    let lost = [3, 7, 8, 12, 20, 21, 22, 39];
    let kept: Vec<u64> = (0..40).filter(|number| !lost.contains(number)).collect();
    assert_eq!(numbers(&path), kept);
    let journal = read(&path).unwrap();
    assert_eq!(journal.damage.len(), 5, "{:?}", journal.damage);
    let skipped: u64 = journal.damage.iter().map(|damage| damage.lost_bytes).sum();
    let whole: usize = kept.iter().map(|&number| encode(&record(number)).unwrap().len()).sum();
    assert_eq!(skipped as usize, bytes.len() - HEADER.len() - whole);
}

#[test]
fn what_is_no_journal_is_told() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(read(folder.path()), Err(JournalError::Empty(_))));
    let path = folder.path().join("x");
    for (bytes, says) in [(&b""[..], "empty"), (b"ovljrnl\x03", "version 3"), (b"\x7fELF....", "otherwise")] {
        fs::write(&path, bytes).unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("STATE_DIR/journal"), "{error}");
    }
    // A writer leaves it as the previous file and begins anew.
    fs::rename(&path, folder.path().join(CURRENT)).unwrap();
    write(folder.path(), 1 << 20, 0..2);
    assert_eq!(numbers(&folder.path().join(CURRENT)), [0, 1]);
    assert!(folder.path().join(PREVIOUS).exists());
}

#[test]
fn the_format_stays_what_it_was() {
    let adapter = overlan_contract::Adapter {
        name: "e".into(),
        kind: "ether".into(),
        address: [10, 0, 0, 1].into(),
        prefix_length: 24,
        mtu: 1_500,
        speed: 0,
        class_of_service: String::new(),
        dscp: 0,
        status: overlan_contract::AdapterStatus::Up,
        attributes: Vec::new(),
    };
    let question = sizing::Question {
        local: adapter.clone(),
        remote: adapter,
        path_mtu: Some(1_500),
        rtt_us: None,
        loss_ppm: 0,
        overhead: 28,
        attributes: Vec::new(),
    };
    let answer = sizing::Answer { datagram: 1_472, coalesce: 1_200, burst: 65_536 };
    let record =
        Record { exchange: Exchange::Sizing(question, Ok(answer)), sha256: "ab".into(), ..record(2) };
    let record = Record { limits: Vec::new(), fresh: false, ..record };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&encode(&record).unwrap()), FORMAT, "another layout is another version of the format");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(CURRENT);
    let digits = VERSION_1.as_bytes().chunks(2);
    let bytes = digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap());
    fs::write(&path, b"ovljrnl\x01".iter().copied().chain(bytes).collect::<Vec<_>>()).unwrap();
    assert_eq!(read(&path).unwrap().records, std::slice::from_ref(&record));
    // The first writer of this version leaves it as the previous file.
    write(folder.path(), 1 << 20, 0..1);
    assert_eq!(read(folder.path()).unwrap().records, [record, self::record(0)]);
}

/// The record above.
const FORMAT: &str = "5b000000ea8930c820dd2c43020c6275696c74696e3a6661737402616201036b65790576616c756507010201016505\
    6574686572000a00000118dc0b00000000000165056574686572000a00000118dc0b000000000001dc0b00001c0000c00bb0098080040000";

/// The same in version 1.
const VERSION_1: &str = "5900000082e101d60a2bd52d020c6275696c74696e3a6661737402616201036b65790576616c75650701020101650565\
    74686572000a00000118dc0b00000000000165056574686572000a00000118dc0b000000000001dc0b00001c0000c00bb009808004";

/// Neither writer nor reader waits for a FIFO, and the journal goes on beside it.
#[test]
fn what_is_no_file_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    for name in [CURRENT, "next.journal"] {
        let path = folder.path().join(name);
        let _ = fs::remove_file(&path);
        let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        if name == CURRENT {
            assert!(matches!(read(folder.path()), Err(JournalError::Io { .. })));
        } else {
            fs::remove_file(folder.path().join(CURRENT)).unwrap();
        }
        let mut writer = Writer::open(folder.path(), 1 << 20).unwrap();
        writer.append(&encode(&record(1)).unwrap()).unwrap();
        assert_eq!(read(folder.path()).unwrap().records, [record(1)]);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), count in 0_u64..5) {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 1 << 20, 0..count);
        let path = folder.path().join(CURRENT);
        let mut whole = fs::read(&path).unwrap();
        whole.extend(bytes);
        fs::write(&path, whole).unwrap();
        prop_assert!(read(&path).unwrap().records.len() as u64 >= count);
        write(folder.path(), 1 << 20, count..count + 1);
        prop_assert!(read(&path).unwrap().damage.is_empty());
    }

    #[test]
    fn a_flipped_bit_loses_its_record_alone(flip: prop::sample::Index, bit in 0..8_u8) {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), 1 << 20, 0..5);
        let path = folder.path().join(CURRENT);
        let mut bytes = fs::read(&path).unwrap();
        let at = HEADER.len() + flip.index(bytes.len() - HEADER.len());
        bytes[at] ^= 1 << bit;
        fs::write(&path, bytes).unwrap();
        let journal = read(&path).unwrap();
        prop_assert_eq!(journal.damage.len(), 1);
        let damage = &journal.damage[0];
        prop_assert!((damage.offset..damage.offset + damage.lost_bytes).contains(&(at as u64)));
        let flipped = damage.records as u64;
        prop_assert_eq!(journal.records, (0..5).filter(|number| *number != flipped).map(record).collect::<Vec<_>>());
    }
}
