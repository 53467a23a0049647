use proptest::prelude::*;

use super::{LIMIT_OCTETS, remote_id};

/// What servers say, and the id in it.
const SAID: [(&str, Option<&str>); 16] = [
    ("Ok: queued as 4bX1Yz2Qk9z1", Some("4bX1Yz2Qk9z1")),
    ("OK id=1tGk2x-000000001aB-0cDe", Some("1tGk2x-000000001aB-0cDe")),
    ("1a2b3c4d Message accepted for delivery", Some("1a2b3c4d")),
    ("4AU8X1Ab012345 Message accepted for delivery", Some("4AU8X1Ab012345")),
    ("OK  1733000000 d2e1a72fcca58-7252de1a2b3si123.45 - gsmtp", Some("d2e1a72fcca58-7252de1a2b3si123.45")),
    (
        "<m1@example.org> [InternalId=90911922390000, Hostname=DB9P195.EURP195.PROD.OUTLOOK.COM] 9271 bytes in 0.1, 60 KB/sec \
         Queued mail for delivery",
        Some("90911922390000"),
    ),
    ("ok 1733000000 qp 12345", Some("12345")),
    (
        "Message Queued (4F7C2A10-9B1E-4E52-A2C7-5D1F3B6A7C8D.1)",
        Some("4F7C2A10-9B1E-4E52-A2C7-5D1F3B6A7C8D.1"),
    ),
    ("Message queued with id 2f9b77e4a1c0.", Some("2f9b77e4a1c0")),
    ("OK ids=d7ef132b5d3d11ee8e2e000c29c4f1a5", Some("d7ef132b5d3d11ee8e2e000c29c4f1a5")),
    ("<a@example.org> 1KbZLx0HC2c Saved", Some("1KbZLx0HC2c")),
    ("Ok. 0000000000AB12.00000000674AC0DE.00001F4B", Some("0000000000AB12.00000000674AC0DE.00001F4B")),
    ("ok", None),
    ("Message accepted for delivery", None),
    ("Thank you, queued as usual", None),
    ("", None),
];

#[test]
fn ids_of_known_servers_are_found() {
    for (said, id) in SAID {
        assert_eq!(remote_id(said), id, "{said}");
    }
}

proptest! {
    /// Whatever a server says, what is taken is a short printable word of it.
    #[test]
    fn an_id_is_a_word_of_the_text(text in "(queued as |id=|ok. | qp |[a-z0-9<>(); .é\u{1f600}]){0,12}") {
        if let Some(id) = remote_id(&text) {
            prop_assert!(text.contains(id));
            prop_assert!(id.len() <= LIMIT_OCTETS && id.bytes().all(|octet| octet.is_ascii_graphic()));
        }
    }
}
