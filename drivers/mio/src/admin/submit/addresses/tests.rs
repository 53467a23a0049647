use super::*;

#[test]
fn a_list_holds_these_addresses() {
    for (list, expected) in [
        ("root", &["root"][..]),
        ("a@b.example, root", &["a@b.example", "root"]),
        ("a@b.example,c@d.example", &["a@b.example", "c@d.example"]),
        ("\"Doe, J\" <j@x.example> (c, d), grp: a@b, c@d;, <z@z>", &["j@x.example", "a@b", "c@d", "z@z"]),
        ("undisclosed-recipients:;", &[]),
        ("<>", &[]),
        ("", &[]),
        (" , ,", &[]),
        ("=?utf-8?q?J=C3=BC?= <j@x>", &["j@x"]),
        ("J\u{fc}rgen <j@x>", &["j@x"]),
        ("a@b (comment (within), with@comma \\) here)", &["a@b"]),
        ("\"a, b\"@x.example", &["\"a, b\"@x.example"]),
        ("<\"a > b\"@x.example>", &["\"a > b\"@x.example"]),
        ("a@[IPv6:2001:db8::1], b@[192.0.2.1]", &["a@[IPv6:2001:db8::1]", "b@[192.0.2.1]"]),
        ("<@r1.example,@r2.example:x@y.example>", &["x@y.example"]),
        ("x@y <z@w>", &["z@w"]),
        ("root (Charlie Root)", &["root"]),
        ("postmaster <root>", &["root"]),
        ("a @ b . example", &["a@b.example"]),
        ("\r\n\ta@b,\r\n c@d", &["a@b", "c@d"]),
        ("<a@b> (c)", &["a@b"]),
        ("\"friends @ work\": a@b, <c@d>;, e@f", &["a@b", "c@d", "e@f"]),
    ] {
        assert_eq!(addresses(list).unwrap(), expected, "{list}");
    }
}

/// A recipient must not be guessed.
#[test]
fn what_is_no_list_is_refused() {
    for list in [
        "bob alice",
        "a@b c@d",
        "\"a",
        "<a@b",
        "(a",
        "a@[192.0.2.1",
        "\"a\\",
        "<a@x> <b@y>",
        "A <a@x> B <b@y>",
        "<a@x> b@y",
        "<a@x> \"b\"",
        "<a@x>[b]",
        "a@x: b@y",
        "\"a\"@x: b@y",
        "A <a@x>: b@y",
    ] {
        assert!(addresses(list).is_err(), "{list}");
    }
}

#[test]
fn a_local_name_is_one_of_this_host() {
    for (address, expected) in
        [("root", "root@me.example"), ("a@b.example", "a@b.example"), ("\"a@b\"", "\"a@b\"@me.example")]
    {
        assert_eq!(qualified(address, "me.example").unwrap().as_str(), expected);
    }
    for address in ["a b", "a@", "@b", "a@b..c", "a\u{7}"] {
        assert!(qualified(address, "me.example").is_err(), "{address}");
    }
}

/// Servers refuse mail from an address that has no domain.
#[test]
fn local_names_of_a_list_get_the_name_of_this_host() {
    for (list, expected) in [
        (" root (Cron Daemon)\r\n", Some(" root@me.example (Cron Daemon)\r\n")),
        ("root", Some("root@me.example")),
        (
            "Root <root>, a@b.example, \"x y\"",
            Some("Root <root@me.example>, a@b.example, \"x y\"@me.example"),
        ),
        ("grp: root, a@b;, <bob >", Some("grp: root@me.example, a@b;, <bob @me.example>")),
        ("a@b.example, C <c@d.example>", None),
        ("undisclosed-recipients:;", None),
        ("bob alice", None),
        ("", None),
    ] {
        let found = qualified_list(list, "me.example");
        assert_eq!(found.as_deref(), expected, "{list}");
        if let Some(found) = found {
            let all_have_domains = addresses(&found).unwrap().iter().all(|address| address.contains('@'));
            assert!(all_have_domains, "{found}");
        }
    }
}
