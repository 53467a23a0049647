use super::*;

#[test]
fn only_a_clean_line_is_written_as_it_is() {
    assert_eq!(server_line(b"250 ok\r\n", false), "S: 250 ok");
    assert_eq!(server_line("250 größer\r\n".as_bytes(), false), "S: 250 größer");
    assert_eq!(server_line(b"250 ok\r\n", true), r#"S| "250 ok\r\n""#);
    assert_eq!(server_line(b"250 \"a\\\xff\n", false), r#"S| "250 \"a\\\xff\n""#);
    assert_eq!(server_line(b"250 a\rb\r\n", false), r#"S| "250 a\rb\r\n""#);
}

#[test]
fn what_was_observed_stands_after_what_was_given() {
    let mut lines = Lines::new();
    lines.client(0, "C+ 192.0.2.1:25".into());
    lines.give(Given::Server { octets: b"220 mx\r\n".to_vec(), is_joined: false });
    lines.effect(false, "= 2 deferred \"no\"".into());
    lines.effect(true, "= 1 deleted".into());
    lines.client(1, "C: QUIT".into());
    let mut text = String::new();
    lines.write(&mut text);
    assert_eq!(text, "C+ 192.0.2.1:25\nS: 220 mx\nC: QUIT\n= 1 deleted\n= 2 deferred \"no\"\n");
}

#[test]
fn what_was_read_together_stays_together() {
    let mut lines = Lines::new();
    lines.give(Given::Server { octets: b"220 mx\r\n".to_vec(), is_joined: false });
    lines.client(1, "C: EHLO a".into());
    lines.give_joined(b"250 mx\r\n");
    lines.unsay(1);
    let mut text = String::new();
    lines.write(&mut text);
    assert_eq!((&*text, lines.has_fixed_reads), ("S| \"220 mx\\r\\n250 mx\\r\\n\"\n", true));
}
