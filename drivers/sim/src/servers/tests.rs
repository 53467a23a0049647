use super::temperament::{BatchConduct, Extensions, Tiredness};
use super::*;

const ENVELOPE: &str = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n";

/// Returns what a server says, line by line, and which messages it accepts, when it hears these segments.
fn hears(temperament: &Temperament, segments: &[&str]) -> (Vec<String>, Vec<(u32, String)>) {
    let mut memory = Memory::default();
    let mut dice = Dice::new(7);
    let mut around = Surroundings {
        now: Instant::default(),
        temperament,
        memory: &mut memory,
        dice: &mut dice,
        acts: Vec::new(),
    };
    let mut conversation = Conversation::begin(false, &mut around);
    around.acts.clear();
    for segment in segments {
        conversation.received(segment.as_bytes(), &mut around);
    }
    let (mut lines, mut accepted) = (Vec::new(), Vec::new());
    for act in around.acts {
        match act {
            Act::Say { octets, .. } => {
                lines.extend(String::from_utf8_lossy(&octets).lines().map(|line| line[..3].to_owned()));
            }
            Act::Close | Act::Reset => lines.push("end".into()),
            Act::Accept { number, data, .. } => {
                accepted.push((number, String::from_utf8_lossy(&data).into_owned()));
            }
        }
    }
    (lines, accepted)
}

fn honest() -> Temperament {
    let extensions = Extensions { pipelining: true, ..Extensions::default() };
    Temperament { knows_ehlo: true, extensions, ..Temperament::default() }
}

fn envelope_and(rest: &str) -> String {
    format!("{ENVELOPE}{rest}")
}

#[test]
fn batches_are_obeyed_however_they_are_cut() {
    let first = envelope_and("DATA\r\n");
    let second = format!("x\r\n.\r\n{}", envelope_and("DATA\r\n"));
    let (lines, accepted) = hears(&honest(), &[&first, &second, ".\r\nQUIT\r\n"]);
    assert_eq!(lines, ["250", "250", "354", "250", "250", "250", "354", "250", "221", "end"]);
    assert_eq!(accepted, [(1, "x\r\n".to_owned()), (2, String::new())]);
    let all = [first.as_str(), &second, ".\r\nQUIT\r\n"].concat();
    let octets: Vec<&str> = all.split_inclusive("").filter(|octet| !octet.is_empty()).collect();
    assert_eq!(hears(&honest(), &octets), (lines, accepted));
}

#[test]
fn servers_that_cannot_bear_batches_spoil_them_and_nothing_else() {
    let batch = envelope_and("DATA\r\n");
    let single = ["MAIL FROM:<a@b>\r\n", "RCPT TO:<c@d>\r\n", "DATA\r\n", "x\r\n.\r\n", "QUIT\r\n"];
    let conducts = [
        (BatchConduct::LosesInput, vec!["250"]),
        (BatchConduct::RefusesSecond, vec!["250", "503", "503"]),
        (BatchConduct::Drops, vec!["end"]),
    ];
    for (batches, expected) in conducts {
        let server = Temperament { batches, ..honest() };
        let lines = hears(&server, &[&batch]).0;
        let is_expected = |(line, expected): (&String, &&str)| line == expected || line == "500";
        assert!(lines.len() == expected.len() && lines.iter().zip(&expected).all(is_expected), "{lines:?}");
        let (lines, accepted) = hears(&server, &single);
        assert_eq!(lines, ["250", "250", "354", "250", "221", "end"], "{batches:?}");
        assert_eq!(accepted.len(), 1);
    }
    let leaves = Temperament { batches: BatchConduct::Leaves, ..honest() };
    let long = "RSET\r\n".repeat(20);
    assert!(hears(&leaves, &[&long]).0.ends_with(&["421".into(), "end".into()]));
}

#[test]
fn a_message_for_nobody_is_taken_by_who_asks_for_it_and_is_no_message() {
    let server = Temperament { takes_nobody: true, ..honest() };
    let said = "MAIL FROM:<a@b>\r\nRCPT TO:<nobody@d>\r\nDATA\r\n";
    let (lines, accepted) = hears(&server, &[said, ".\r\n"]);
    assert_eq!(lines[..3], ["250", "550", "354"]);
    assert!(["250", "554"].contains(&lines[3].as_str()), "{lines:?}");
    assert!(accepted.is_empty());
}

#[test]
fn confused_servers_say_more_about_a_message_than_they_are_asked() {
    let said = [&*envelope_and("DATA\r\n"), "x\r\n", ".\r\n"];
    let cases = [
        (Temperament { twice: 1000, ..honest() }, "250 250 354 250 250"),
        (Temperament { out_of_step: 1000, ..honest() }, "250 250 354 500 250"),
        (Temperament { out_of_step_at_end: 1000, ..honest() }, "250 250 354 500 250"),
    ];
    for (server, expected) in cases {
        let (lines, accepted) = hears(&server, &said);
        assert_eq!((lines.join(" ").as_str(), accepted.len()), (expected, 1));
    }
}

#[test]
fn servers_with_a_limit_take_so_many_messages_and_no_more() {
    let all = ["MAIL FROM:<a@b>\r\n", "RCPT TO:<c@d>\r\n", "DATA\r\n", "x\r\n.\r\n"].repeat(2);
    let refuses = [
        (Tiredness::AtMail, "452 503 503"),
        (Tiredness::AtRcpt, "250 452 503"),
        (Tiredness::AtData, "250 250 451"),
        (Tiredness::Leaves, "421 end"),
        (Tiredness::OutOfStep, "500 503 503"),
    ];
    for (tiredness, expected) in refuses {
        let server = Temperament { message_limit: Some((1, tiredness)), ..honest() };
        let (lines, accepted) = hears(&server, &all);
        assert!(lines.join(" ").starts_with(&format!("250 250 354 250 {expected}")), "{lines:?}");
        assert_eq!(accepted.len(), 1);
    }
    let server = Temperament { hourly_limit: Some(1), ..honest() };
    let (lines, accepted) = hears(&server, &all);
    assert!(lines.join(" ").starts_with("250 250 354 250 450"), "{lines:?}");
    assert_eq!(accepted.len(), 1);
}
