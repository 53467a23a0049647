use super::*;
use std::fs::{self, OpenOptions};
use std::io::Read as _;

fn appending(path: &std::path::Path) -> Arc<File> {
    Arc::new(OpenOptions::new().append(true).create(true).open(path).unwrap())
}

#[test]
fn a_full_disk_loses_lines_and_says_so_later() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut sink = Sink::new(appending("/dev/full".as_ref()), false, None);
    sink.write(b"lost\nlost too\n");
    sink.write(b"lost as well\n");
    sink.replace(appending(file.path()), false);
    sink.write(b"written\n");
    let text = fs::read_to_string(file.path()).unwrap();
    let (note, rest) = text.split_once('\n').unwrap();
    assert!(
        note.ends_with(
            " WARN  3 log lines were dropped because the log could not be written: \
             No space left on device (os error 28)"
        ),
        "{note}"
    );
    assert_eq!(rest, "written\n");
}

#[test]
fn what_comes_after_a_torn_line_begins_one_of_its_own() {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let mut sink = Sink::new(Arc::new(writer.into()), false, Some(Duration::ZERO));
    // As much as goes into the pipe, with an end that the reader never sees.
    let long = [vec![b'x'; 1 << 20], b"\n".to_vec()].concat();
    sink.write(&long);
    assert!(sink.is_torn);
    let mut reader = File::from(reader);
    let mut taken = vec![0; 1 << 16];
    let count = reader.read(&mut taken).unwrap();
    sink.write(b"next\n");
    drop(sink);
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    assert!(taken[..count].iter().all(|&octet| octet == b'x'));
    let lines: Vec<_> = rest.lines().skip_while(|line| line.starts_with('x') || line.is_empty()).collect();
    assert!(
        lines[0].ends_with(
            "1 log line was dropped because the log could not be written: its reader does not read"
        )
    );
    assert_eq!(lines[1..], ["next"]);
}

#[test]
fn a_file_that_ends_in_the_middle_of_a_line_is_mended() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "torn").unwrap();
    Sink::new(appending(file.path()), true, None).write(b"next\n");
    assert_eq!(fs::read_to_string(file.path()).unwrap(), "torn\nnext\n");
}

#[test]
fn a_reader_who_does_not_read_is_waited_for_only_so_long() {
    let (_reader, writer) = nix::unistd::pipe().unwrap();
    let (written, result) = write_within(&writer.into(), &[b'x'; 1 << 20], Some(Duration::ZERO));
    assert!(written > 0 && written < 1 << 20, "{written}");
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::TimedOut);
}
