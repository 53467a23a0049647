//! The manual page of the tool, made from the definition of its command line. It stands in the repository, so that a package needs no tool to
//! build it, and a test holds it to the definition.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::words::Words;

/// The heading of the words that select mail, which many verbs share.
const SELECTION: &str = "Which mail";

/// What the definition does not say.
const REST: &str = r#".SH OUTPUT
Times are local, with their offset from UTC.
Control characters in what others have stored are shown as escapes, and passwords are never shown.
Each mail, attempt or count is one line.
.PP
With
.B \-\-json
each line is an object with its version and its kind;
.I docs/json.md
lists the fields.
.SH EXIT STATUS
.TP
.B 0
It is done, or something was found.
.TP
.B 1
It has failed; the reason is told on standard error.
.TP
.B 2
Nothing fits what was asked for.
.TP
.B 64
The command line is wrong.
.PP
.B submit
has others, as above.
.SH ENVIRONMENT
.TP
.B CMAIL_MASTER_DB
The master database, where
.B \-\-dbpath
is not given.
.SH EXAMPLES
What waits, by destination and age:
.PP
.RS
.nf
cmail\-admin\-queue summary
.fi
.RE
.PP
Why mail to a domain waits, and when it is tried next:
.PP
.RS
.nf
cmail\-admin\-queue list \-\-domain example.org
.fi
.RE
.PP
All of one mail, also when it has left:
.PP
.RS
.nf
cmail\-admin\-queue show 41
.fi
.RE
.PP
Did mail to an address leave, when, and to which server:
.PP
.RS
.nf
cmail\-admin\-queue history \-\-recipient bob@example.org \-\-since 2d
.fi
.RE
.PP
A message of a script:
.PP
.RS
.nf
printf 'Subject: done\\n\\nAll is well.\\n' | cmail\-admin\-queue submit root@example.org
.fi
.RE
.SH SEE ALSO
.BR cmail\-dispatchd (8),
.BR sqlite3 (1)
"#;

fn manual_page() -> String {
    let root = Words::command();
    let title = Man::new(root.clone())
        .title("CMAIL-ADMIN-QUEUE")
        .section("8")
        .date("")
        .source(concat!("cmail-dispatchd ", env!("CARGO_PKG_VERSION")))
        .manual("System Administration");
    let mut page = Vec::new();
    title.render_title(&mut page).unwrap();
    title.render_name_section(&mut page).unwrap();
    title.render_synopsis_section(&mut page).unwrap();
    title.render_description_section(&mut page).unwrap();
    let mut page = String::from_utf8(page).unwrap();
    page.push_str(
        ".PP\nThe verbs that only show something read the database beside the daemon or without it. They need no lock, and change nothing.\n",
    );
    page.push_str(".SH VERBS\n");
    for verb in root.get_subcommands() {
        let usage = verb.clone().bin_name(verb.get_name()).render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").trim_start_matches("cmail-admin-queue ");
        page.push_str(&format!(".SS {}\n", plain(usage)));
        let about = verb.get_long_about().or(verb.get_about()).unwrap_or_default().to_string();
        page.push_str(&format!("{}.\n", plain(about.trim_end_matches('.')).replace("\n\n", ".\n.PP\n")));
        page.push_str(&options(verb, |heading| heading != Some(SELECTION)));
        if verb.get_arguments().any(|argument| argument.get_help_heading() == Some(SELECTION)) {
            page.push_str(".PP\nTakes a selection, as described below.\n");
        }
    }
    page.push_str(".SH SELECTION\nSeveral of these narrow it down. Without any, all mail is meant; a verb that changes mail wants --all then.\n");
    let selecting = root.find_subcommand("list").unwrap();
    page.push_str(&options(selecting, |heading| heading == Some(SELECTION)));
    page.push_str(".SH OPTIONS\nThey may stand before the verb or after it.\n");
    page.push_str(&options(&root, |_| true));
    page.push_str(REST);
    page
}

/// Returns the list of the arguments with such a heading.
fn options(command: &Command, is_wanted: impl Fn(Option<&str>) -> bool) -> String {
    let wanted = command.get_arguments().filter(|argument| is_wanted(argument.get_help_heading()));
    let wanted = wanted.map(|argument| argument.clone().help_heading(None::<&str>));
    let part = Command::new("part").disable_help_flag(true).disable_version_flag(true).args(wanted);
    let mut list = Vec::new();
    Man::new(part).render_options_section(&mut list).unwrap();
    let list = String::from_utf8(list).unwrap();
    list.lines().filter(|line| *line != ".SH OPTIONS").map(|line| format!("{line}\n")).collect()
}

/// Escapes a text for man(7).
fn plain(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

#[test]
fn the_manual_page_is_that_of_the_command_line() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("cmail-admin-queue.8");
    let page = manual_page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, page).unwrap();
        return;
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        found, page,
        "the page is not up to date; run: UPDATE_DOCS=1 cargo test -p cmail-dispatchd manual::"
    );
}
