use super::*;

#[test]
fn the_holder_stands_in_the_line_of_its_lock_and_no_other() {
    let holder = |line| holder_in(line, "FLOCK", "fd:01:131");
    assert_eq!(holder("1: FLOCK  ADVISORY  WRITE 4711 fd:01:131 0 EOF"), Some(4711));
    for line in [
        "1: FLOCK  ADVISORY  WRITE 4711 fd:01:1312 0 EOF",
        "1: FLOCK  ADVISORY  WRITE 4711 fd:02:131 0 EOF",
        "1: FLOCK  ADVISORY  READ 4711 fd:01:131 0 EOF",
        "1: POSIX  ADVISORY  WRITE 4711 fd:01:131 0 EOF",
        "1: OFDLCK ADVISORY  WRITE -1 fd:01:131 0 EOF",
        "1: FLOCK  ADVISORY  WRITE 0 fd:01:131 0 EOF",
        "1: -> FLOCK  ADVISORY  WRITE 4712 fd:01:131 0 EOF",
        "",
    ] {
        assert_eq!(holder(line), None, "{line}");
    }
}
