use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Words {
    #[command(flatten)]
    selection: Selection,
}

fn selection(words: &str) -> Result<Selection, clap::Error> {
    let words = std::iter::once("tool").chain(words.split_whitespace());
    Words::try_parse_from(words).map(|words| words.selection)
}

/// An order holds the selection that was counted, so its JSON must mean the same.
#[test]
fn each_selection_survives_its_json() {
    for (words, json) in [
        ("", "{}"),
        ("7 41", r#"{"ids":[7,41]}"#),
        ("--domain Example.ORG.", r#"{"domain":"Example.ORG"}"#),
        ("--remote relay.lan:587/StartTLS", r#"{"remote":"relay.lan:587/starttls"}"#),
        ("--sender <>", r#"{"sender":"<>"}"#),
        ("--sender <a@example.org>", r#"{"sender":"a@example.org"}"#),
        ("--recipient @example.org", r#"{"recipient":"@example.org"}"#),
        ("--message-id <1@client.example>", r#"{"message_id":"1@client.example"}"#),
        ("--older 2h", r#"{"older_s":7200}"#),
        ("--place given_up", r#"{"place":"given_up"}"#),
        ("--status 4.7", r#"{"status":"4.7"}"#),
        ("--status 421", r#"{"status":"421"}"#),
        ("--status 4", r#"{"status":"4"}"#),
    ] {
        let parsed = selection(words).unwrap();
        assert_eq!(serde_json::to_string(&parsed).unwrap(), json, "{words}");
        assert_eq!(serde_json::from_str::<Selection>(json).unwrap(), parsed, "{words}");
    }
}

/// A selection that is not understood whole would mean more mail than it says.
#[test]
fn json_with_more_than_is_known_is_refused() {
    for json in [r#"{"domian":"example.org"}"#, r#"{"domain":"a b"}"#, r#"{"status":"x"}"#, ""] {
        assert!(serde_json::from_str::<Selection>(json).is_err(), "{json}");
    }
}

#[test]
fn words_that_select_nothing_sensible_are_refused() {
    for words in [
        "x",
        "--domain a..b",
        "--domain a@b.example",
        "--remote user:password@relay.lan:25",
        "--remote relay.lan:0",
        "--sender @",
        "--sender @a@b",
        "--message-id <>",
        "--older 2w",
        "--place nowhere",
        "--status 3.1",
        "--status 4.",
        "--status 4.7.1.1",
        "--status 6",
        "--status 1234",
    ] {
        assert!(selection(words).is_err(), "{words}");
    }
}

#[test]
fn a_status_is_one_that_begins_so() {
    let status = |text: &[u8]| EnhancedStatus::parse_prefix(text).map(|(status, _)| status);
    let fits = |pattern: &str, code, text: &str| {
        pattern.parse::<StatusPattern>().unwrap().fits(code, status(text.as_bytes()))
    };
    assert!(fits("4.7", Some(451), "4.7.1"));
    assert!(fits("4.7.1", Some(451), "4.7.1"));
    assert!(!fits("4.7", Some(451), "4.70.1"));
    assert!(!fits("4.7.1", Some(451), "4.7.10"));
    assert!(!fits("4.7", Some(451), ""));
    assert!(fits("4", Some(451), ""));
    assert!(fits("4", None, "4.4.1"));
    assert!(!fits("5", Some(451), "4.4.1"));
    assert!(fits("45", Some(451), "4.4.1"));
    assert!(!fits("45", None, "4.5.0"));
    assert!(fits("451", Some(451), ""));
}

#[test]
fn a_remote_is_recognized_without_its_password() {
    let fits =
        |pattern: &str, remote: &str| pattern.parse::<RemotePattern>().unwrap().fits(remote.as_bytes());
    for remote in ["relay.lan", "Relay.LAN:25", "relay.lan:587/starttls", "user:pass@relay.lan:587/STARTTLS"]
    {
        assert!(fits("relay.lan", remote), "{remote}");
    }
    assert!(fits("relay.lan:587/starttls", "user:pass@relay.lan:587/STARTTLS"));
    assert!(fits("relay.lan:587", "user:pass@relay.lan:587/starttls"));
    assert!(!fits("relay.lan:587/tls", "relay.lan:587/starttls"));
    assert!(!fits("relay.lan:587/tls", "relay.lan:587"));
    assert!(!fits("relay.lan:58", "relay.lan:587"));
    assert!(!fits("relay.lan", "user:relay.lan@other.lan"));
    assert!(!fits("relay.lan", "other-relay.lan:25"));
    assert!(!fits("relay.lan", "relay.lan:x"));
}
