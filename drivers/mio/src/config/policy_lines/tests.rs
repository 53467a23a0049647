use super::super::tests::{errors, warnings};

#[test]
fn lines_about_destinations_that_say_less_than_they_seem_to_are_warned_of() {
    let text = "database /db\nresolver 192.0.2.1\ndestination * via relay.example:25\ndestination a.example padding 1\n\
                destination remote:relay.example concurrency 30\ndestination b.example via none concurrency 20\n";
    assert_eq!(
        warnings(text),
        [
            "test.conf:4: destination: mail to a.example goes via relay.example:25, so what this line says of connections has no \
             effect; say it of that relay, as in \"destination remote:relay.example …\"",
            "test.conf:5: destination: concurrency 30 is more than the 20 connections that there may be to one host; add \
             \"host_concurrency 30\"",
        ]
    );
}

#[test]
fn lines_about_destinations_that_cannot_work_together_are_errors() {
    let text = "database /db\ndestination a.example via r.example padding 1\ndestination b.example via r.example padding 2\n\
                destination c.example bind ::1 family ipv4\ndestination d.example bind no.such.host.invalid\n";
    let errors = errors(text);
    assert_eq!(errors.len(), 3, "{errors:?}");
    for (error, beginning) in errors.iter().zip([
        "test.conf:4: destination: bind has no address of the family",
        "test.conf:5: destination: \"no.such.host.invalid\" has no address: ",
        "test.conf:3: destination: line 2 sends mail via the same relay and says something else of it",
    ]) {
        assert!(error.starts_with(beginning), "{error}");
    }
}
