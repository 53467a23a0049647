use super::*;
use cmail_delivery::next_hop::Credentials;

struct Bench {
    talk: Talk,
    lines: Lines,
    mask: Mask,
    call: u64,
}

impl Bench {
    fn new() -> Self {
        let credentials = Credentials { user: "alice".into(), password: "wonder land".into() };
        let mask = Mask::new("me.real.test", Some(&credentials));
        Self { talk: Talk::new(ConnectionId(0)), lines: Lines::new(), mask, call: 0 }
    }

    fn server(&mut self, text: &str) -> &mut Self {
        self.call += 1;
        self.talk.received(text.as_bytes(), self.call, &mut self.lines, &mut self.mask);
        self
    }

    fn client(&mut self, line: &str) -> &mut Self {
        self.talk.sent(format!("{line}\r\n").as_bytes(), self.call, &mut self.lines, &mut self.mask);
        self
    }

    fn data(&mut self, octets: &[u8]) -> Told {
        self.talk.sent_data(octets, self.call, &mut self.lines)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        self.lines.write(&mut text);
        text
    }
}

#[test]
fn a_server_of_one_word_is_masked_in_its_replies() {
    let mut bench = Bench::new();
    bench.server("220 box7 ESMTP\r\n").client("EHLO me.real.test");
    bench.server("250-box7 hello me.real.test\r\n250 SIZE 7\r\n");
    assert_eq!(
        bench.text(),
        "S: 220 mx1.example.net ESMTP\nC: EHLO mail.example.org\n\
         S: 250-mx1.example.net hello mail.example.org\nS: 250 SIZE 7\n"
    );
}

#[test]
fn challenges_are_masked_inside() {
    let mut bench = Bench::new();
    let challenge = STANDARD.encode("<1.2@mx.real.test>");
    bench.server("250 ok\r\n").client("AUTH CRAM-MD5").server(&format!("334 {challenge}\r\n")).client("***");
    bench.server("535 no wonder land\r\n");
    let masked = STANDARD.encode("<u1@example.net>");
    assert_eq!(
        bench.text(),
        format!("S: 250 ok\nC: AUTH CRAM-MD5\nS: 334 {masked}\nC: ***\nS: 535 no ***\n")
    );
}

#[test]
fn a_proof_of_scram_is_left_to_the_replay_unless_it_was_none() {
    let first = STANDARD.encode("r=abcdef,s=c2FsdA==,i=4096");
    let last = STANDARD.encode("v=c2lnbmF0dXJl");
    let mut bench = Bench::new();
    bench.client("AUTH SCRAM-SHA-256 ***").server(&format!("334 {first}\r\n")).client("***");
    bench.server(&format!("334 {last}\r\n"));
    assert!(bench.text().ends_with("S: 334 {scram-first 4096}\nC: ***\nS: 334 {scram-final}\n"));
    bench.client("*");
    assert!(!bench.text().contains("scram-final") && !bench.text().contains(&last), "{}", bench.text());
}

#[test]
fn mail_data_is_only_counted() {
    let mut bench = Bench::new();
    bench.client("DATA").server("354 go\r\n");
    assert_eq!(bench.data(b"Subject: secret\r\n\r\n."), Told::Nothing);
    assert_eq!(bench.data(b".\r\n.\r"), Told::Nothing);
    assert_eq!(bench.data(b"\n"), Told::FinalDot(26));
    assert_eq!(bench.text(), "C: DATA\nS: 354 go\nC. 26 octets, final dot\n");
}

#[test]
fn what_was_read_with_the_verdict_on_a_message_stays_with_it() {
    let mut bench = Bench::new();
    bench.server("220 mx\r\n").client("DATA").server("354 go\r\n").client(".");
    bench.client("MAIL FROM:<>").client("RCPT TO:<a@b>");
    bench.server("250 taken\r\n250 ok\r\n").server("250 ok\r\n");
    let text = bench.text();
    assert!(text.ends_with("S| \"250 taken\\r\\n250 ok\\r\\n\"\nS: 250 ok\n"), "{text}");
}

#[test]
fn a_message_without_its_end_says_how_much_the_network_took() {
    let mut bench = Bench::new();
    bench.client("DATA").server("354 go\r\n").data(b"abc");
    bench.talk.end(bench.call, &mut bench.lines);
    assert_eq!(bench.text(), "C: DATA\n! takes 3\nS: 354 go\nC. 3 octets, no final dot\n");
}
