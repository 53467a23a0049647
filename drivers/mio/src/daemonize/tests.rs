use super::*;

#[test]
fn the_waiting_process_exits_as_the_daemon_tells() {
    for (report, status) in [(&[STARTED][..], 0), (&[FAILED], 1), (&[], 1)] {
        let (reader, writer) = unistd::pipe().unwrap();
        File::from(writer).write_all(report).unwrap();
        assert_eq!(wait_for_start(reader), status, "{report:?}");
    }
}

#[test]
fn a_start_in_the_foreground_keeps_the_standard_streams() {
    let stream = || std::fs::read_link("/proc/self/fd/0").unwrap();
    let before = stream();
    Launch::in_foreground().succeed().unwrap();
    Launch::in_foreground().fail();
    assert_eq!(stream(), before);
}
