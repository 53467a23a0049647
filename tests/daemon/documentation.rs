//! README.md and the pages of `docs` do what they say: their samples of the log are what the program prints, their recipes work,
//! and their links lead somewhere.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::{self, Action, Daemon, Mail, PATIENCE, Script, SmtpServer, World, skip};
use nix::sys::signal::Signal;

/// Returns the path of a file of the repository.
fn in_repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

/// Returns the code blocks of a language below a heading of a page, or of the whole page if the heading is its title.
pub(crate) fn blocks(page: &str, heading: &str, language: &str) -> Vec<String> {
    let text = format!("\n{}", fs::read_to_string(in_repository(page)).unwrap());
    let (_, below) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("{heading}"));
    let end = if heading.starts_with("# ") { None } else { below.find("\n## ") };
    let fenced = below[..end.unwrap_or(below.len())].split("```").skip(1).step_by(2);
    fenced.filter_map(|block| block.strip_prefix(&format!("{language}\n"))).map(str::to_owned).collect()
}

/// Returns the here-document of a command of the first steps.
fn here_document(command: &str) -> String {
    let begin = format!("{command} <<'END'\n");
    let found = blocks("docs/first-steps.md", "# First steps", "sh")
        .into_iter()
        .find_map(|block| block.strip_prefix(&begin).map(str::to_owned));
    found.unwrap_or_else(|| panic!("{command}")).trim_end().strip_suffix("END").unwrap().to_owned()
}

/// Returns the recipe for the database below the comment that begins with this text.
fn recipe(comment: &str) -> String {
    let block = blocks("docs/queue.md", "## Looking into the queue", "sql").pop().unwrap();
    let (prelude, _) = block.split_once("\n\n").unwrap();
    let (_, below) = block.split_once(&format!("-- {comment}")).unwrap_or_else(|| panic!("{comment}"));
    format!("{prelude}\n--{}", below.split("\n\n").next().unwrap())
}

/// A program that is killed when the test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Masks what differs in a line from run to run.
fn masked(line: &str, port: &str, directory: &str) -> String {
    let (_, rest) = line.split_once(' ').unwrap_or_default();
    let rest = rest.replace(&format!("]:{port}"), "]:PORT").replace(directory, "DIRECTORY");
    let rest = ["message_id", "size", "delays", "conn", "n", "next"]
        .into_iter()
        .fold(rest, |rest, key| without_value(&rest, key));
    match rest.split_once(" as process ") {
        Some((before, _)) => format!("{before} as process PID"),
        None => rest,
    }
}

/// Leaves out the value of a key, which depends on how quickly everything goes.
fn without_value(line: &str, key: &str) -> String {
    let Some((before, rest)) = line.split_once(&format!(" {key}=")) else { return line.to_owned() };
    let (_, after) = rest.split_once(' ').unwrap_or((rest, ""));
    format!("{before} {key}= {after}")
}

#[test]
fn the_sample_of_the_log_is_what_the_program_prints() {
    if Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_err() {
        return skip("there is no python3");
    }
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    // The port is closed again, and the system does not reuse it so soon.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    fs::write(at("trial.conf"), here_document("cat > trial.conf").replace("2525", &port)).unwrap();
    fs::write(at("sink.py"), here_document("cat > sink.py")).unwrap();
    let mut sink = Command::new("python3");
    sink.arg(at("sink.py")).arg(&port).stdout(Stdio::null()).stderr(Stdio::null());
    let _sink = Killed(sink.spawn().unwrap());
    let deadline = std::time::Instant::now() + PATIENCE;
    while std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err() {
        assert!(std::time::Instant::now() < deadline, "sink.py does not listen");
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
    let created = Daemon::run_in(directory.path(), Path::new("trial.conf"), &["initdb"]);
    assert_eq!(created.code(), Some(0), "{}", created.stderr);
    let daemon = Daemon::spawn_in(directory.path(), Path::new("trial.conf"), &["nodrop"]);
    daemon.wait_for_output(" creating an index of the faillog ");
    let database = rusqlite::Connection::open(at("master.db")).unwrap();
    database.busy_timeout(PATIENCE).unwrap();
    database.execute_batch(&here_document("sqlite3 master.db")).unwrap();
    daemon.wait_for_output("mail 4 to <me@[127.0.0.1]> delivered");
    daemon.wait_for_output("mail 3 to ");

    let mut printed: Vec<String> = daemon
        .stderr()
        .lines()
        .map(|line| masked(line, &port, directory.path().canonicalize().unwrap().to_str().unwrap()))
        .collect();
    let sample = |page: &str, heading: &str| -> Vec<String> {
        let block = blocks(page, heading, "text").remove(0);
        block.lines().map(|line| masked(line, "2525", "/tmp/trial")).collect()
    };
    let mut samples = sample("docs/first-steps.md", "# First steps");
    assert!(
        sample("docs/operation.md", "## The log").iter().all(|line| printed.contains(line)),
        "{printed:#?}"
    );
    // When a bounce is made depends on how quickly the database answers.
    printed.sort_unstable();
    samples.sort_unstable();
    assert_eq!(printed, samples);
    daemon.terminate();
}

#[test]
fn every_question_to_the_database_is_answered() {
    let world = World::new();
    for number in 1..=3 {
        world.insert(&Mail::to(&format!("a@d{number}.example")).remote("u:p@relay.example"));
        world.database.insert_failure(number, "450 later", false, 60);
    }
    let questions = blocks("docs/queue.md", "## Looking into the queue", "sql").remove(0);
    let upgrade = blocks("docs/upgrade.md", "# Upgrade from the C program", "sql").remove(0);
    for question in questions.split(";\n").chain(upgrade.split(";\n")).filter(|text| text.contains("SELECT"))
    {
        let mut statement = world.database.connection.prepare(question).unwrap();
        let mut rows = statement.query([]).unwrap();
        assert!(rows.next().unwrap().is_some(), "{question}");
    }
}

/// The questions about the ledger are about `a@example.org` and about mail 3.
#[test]
fn every_question_to_the_ledger_is_answered() {
    let script = Script::new().when(|command| {
        command.line.contains("RCPT TO:<third@").then(|| Action::reply("550 5.1.1 no such user"))
    });
    let (world, _server) = World::with_server(script);
    for to in ["a", "second", "third"] {
        world.insert(&Mail::to(&format!("{to}@example.org")).data(to));
    }
    let daemon = world.start();
    world.database.wait_for_bounces(1);
    world.database.wait("the others are delivered", |database| !database.ids().iter().any(|id| *id < 3));
    daemon.terminate();
    for question in blocks("docs/queue.md", "## The ledger of attempts", "sql").remove(0).split(";\n") {
        if question.contains("SELECT") {
            let mut statement = world.database.connection.prepare(question).unwrap();
            let mut rows = statement.query([]).unwrap();
            assert!(rows.next().unwrap().is_some(), "{question}");
        }
    }
}

/// Queues three mails for a server; the recipes are about the third.
fn world_of_three(script: Script) -> (World, SmtpServer, i64) {
    let (world, server) = World::with_server(script);
    let ids =
        ["first", "second", "third"].map(|to| world.insert(&Mail::to(&format!("{to}@example.org")).data(to)));
    assert_eq!(ids[2], 3);
    (world, server, ids[2])
}

fn run(world: &World, recipe: &str) {
    world.database.connection.execute_batch(recipe).unwrap_or_else(|error| panic!("{error}: {recipe}"));
}

#[test]
fn a_mail_is_tried_again_and_sent_over_another_server() {
    let (world, server, id) = world_of_three(Script::new().once("RCPT", "450 4.2.1 later"));
    let daemon = world.start();
    world.database.wait("one of them has failed", |database| database.ids().len() == 1);
    let left = world.database.ids()[0].to_string();
    run(&world, &recipe("Try one mail again now").replace("= 3", &format!("= {left}")));
    world.database.wait_until_empty();
    assert_eq!(server.records().accepted().len(), 3);
    daemon.terminate();
    let relay = SmtpServer::start(Script::new());
    let id = world.insert(&Mail::to(&format!("again{id}@example.org")));
    let recipe = recipe("Send it over another server").replace("= 3", &format!("= {id}"));
    run(&world, &recipe.replace("relay.example.net:25", &format!("{}:{}", relay.ip(), relay.port())));
    let daemon = world.start();
    world.database.wait_until_empty();
    daemon.terminate();
    assert_eq!(relay.records().accepted().len(), 1);
}

#[test]
fn a_mail_that_is_held_is_not_tried_and_does_not_bounce_until_it_is_let_go() {
    let (mut world, server, id) = world_of_three(Script::new());
    world.set("retries", 1);
    world.database.insert_failure(id, "450 later", false, 9000);
    run(&world, &recipe("Hold it"));
    let daemon = world.start();
    world.database.wait_until_empty();
    // Not even the order to try everything reaches it.
    daemon.signal(Signal::SIGUSR2);
    daemon.wait_until_ready(&world);
    assert_eq!(server.records().delivered_to(), ["first@example.org", "second@example.org"]);
    run(&world, &recipe("Let it go"));
    world.database.wait_until_empty();
    daemon.terminate();
    assert_eq!(
        server.records().delivered_to(),
        ["first@example.org", "second@example.org", "third@example.org"],
        "it was tried as new mail"
    );
}

#[test]
fn a_mail_is_given_up_with_a_bounce_or_deleted_without() {
    let (world, server, id) = world_of_three(Script::new());
    run(&world, &recipe("Give it up"));
    let daemon = world.start();
    world.database.wait("the bounce is there", |database| database.row(id).is_none());
    world.database.wait("the others are sent", |database| database.ids().len() == 1);
    daemon.terminate();
    assert_eq!(server.records().accepted().len(), 2);
    let bounce = world.database.ids()[0];
    let data = world.database.row(bounce).unwrap().data;
    assert!(String::from_utf8_lossy(&data.unwrap()).contains("given up by the administrator"));

    let (world, server, id) = world_of_three(Script::new());
    world.database.insert_failure(id, "450 later", false, 9000);
    run(&world, &recipe("Delete it without a bounce"));
    assert!(world.database.failures().is_empty());
    let daemon = world.start();
    world.database.wait_until_empty();
    daemon.terminate();
    assert_eq!(server.records().accepted().len(), 2);
}

#[test]
fn a_backup_is_nobody_elses_to_read_and_there_is_one_of_each_day() {
    if Command::new("sqlite3").arg("-version").stdout(Stdio::null()).status().is_err() {
        return skip("there is no sqlite3");
    }
    let world = World::new();
    world.insert(&Mail::to("a@example.org"));
    let directory = tempfile::tempdir().unwrap();
    let database: PathBuf = directory.path().join("master.db");
    std::os::unix::fs::symlink(world.database.path(), &database).unwrap();
    // A calendar in place of the one of the system.
    let calendar = directory.path().join("date");
    for day in ["2026-11-22", "2026-11-23"] {
        fs::write(&calendar, format!("#!/bin/sh\n[ \"$1\" = +%Y-%m-%d ] && echo {day}\n")).unwrap();
        fs::set_permissions(&calendar, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", directory.path().display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell
            .arg("-ec")
            .arg(&blocks("docs/operation.md", "## Backup", "sh")[0])
            .current_dir(directory.path())
            .env("PATH", path);
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let backup = directory.path().join(format!("backup-{day}.db"));
        assert_eq!(fs::metadata(&backup).unwrap().permissions().mode() & 0o777, 0o600);
        let copy = rusqlite::Connection::open(&backup).unwrap();
        let count: i64 = copy.query_row("SELECT count(*) FROM outbox", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 1);
    }
}

#[test]
fn mail_is_put_in_with_what_its_sender_wants_to_be_told() {
    let (world, server) = World::with_server(Script::new().keywords(["DSN"]));
    let daemon = world.start();
    daemon.wait_until_ready(&world);
    let recipe = blocks("docs/submission.md", "## What senders want to be told", "sql").remove(0);
    world.database.connection.execute_batch(&recipe).unwrap();
    world.database.wait_until_empty();
    let commands = server.records().connections[0].commands();
    assert!(commands.iter().any(|line| line.ends_with(" RET=HDRS ENVID=order+2017")), "{commands:?}");
    let rcpt = "RCPT TO:<you@example.org> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;you@example.org";
    assert!(commands.iter().any(|line| line == rcpt), "{commands:?}");
}

/// The pages of the documentation, by their paths in the repository.
fn pages() -> Vec<String> {
    let mut pages: Vec<String> = fs::read_dir(in_repository("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".md"))
        .map(|name| format!("docs/{name}"))
        .collect();
    pages.extend(
        ["README.md", "CONTRIBUTING.md", "DESIGN.md", "CHANGELOG.md", "SECURITY.md"].map(str::to_owned),
    );
    pages.sort_unstable();
    pages
}

/// Returns a page without its blocks of code.
fn prose(page: &str) -> String {
    let text = fs::read_to_string(in_repository(page)).unwrap();
    text.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

/// Returns the anchors of a page's headings: lower case, without punctuation, with hyphens for blanks.
fn anchors(page: &str) -> Vec<String> {
    let slug = |heading: &str| -> String {
        let kept = heading.trim_start_matches('#').trim().to_lowercase();
        kept.chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                '-' | '_' => Some(c),
                _ => c.is_alphanumeric().then_some(c),
            })
            .collect()
    };
    prose(page).lines().filter(|line| line.starts_with('#')).map(slug).collect()
}

/// Returns where the links and pictures of a page lead, but for those to other hosts.
fn links(page: &str) -> Vec<String> {
    let text = prose(page);
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://")).map(str::to_owned).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut followed = 0;
    for page in pages() {
        for link in links(&page) {
            let (path, anchor) = link.split_once('#').map_or((&*link, None), |(path, a)| (path, Some(a)));
            let beside = in_repository(&page);
            let file = if path.is_empty() { beside } else { beside.parent().unwrap().join(path) };
            assert!(file.exists(), "{page} has a link to {link}, which is not there");
            if let Some(anchor) = anchor {
                let found = anchors(file.to_str().unwrap()).iter().any(|found| found == anchor);
                assert!(found, "{page} has a link to {link}, but there is no such heading");
            }
            followed += 1;
        }
    }
    assert!(followed > 0);
}

#[test]
fn every_page_is_in_the_lists_of_pages() {
    for page in pages().iter().filter_map(|page| page.strip_prefix("docs/")) {
        if page == "SUMMARY.md" {
            continue;
        }
        assert!(
            links("docs/SUMMARY.md").iter().any(|link| link == page),
            "docs/SUMMARY.md does not name {page}"
        );
        if page != "README.md" {
            assert!(
                links("docs/README.md").iter().any(|link| link == page),
                "docs/README.md does not name {page}"
            );
        }
    }
}

#[test]
fn the_readme_is_short() {
    const LINES_LIMIT: usize = 150;
    let lines = fs::read_to_string(in_repository("README.md")).unwrap().lines().count();
    assert!(lines <= LINES_LIMIT, "{lines} lines");
}

/// Runs the commands of a block, each with the built programs and the configuration of a world.
fn shell(world: &World, commands: &str) -> String {
    let with_config = format!("cmail-admin-queue --config {}", world.write_config().display());
    let programs = Path::new(support::tool::PROGRAM).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell.arg("-ec").arg(commands.replace("cmail-admin-queue", &with_config)).env("PATH", path);
    let output = shell.env_remove("CMAIL_MASTER_DB").output().unwrap();
    assert!(output.status.success(), "{commands}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_first_mail_of_the_readme_leaves() {
    let (world, server) = World::with_server(Script::new());
    let block = blocks("README.md", "## Send a first mail, and see it leave", "sh").remove(0);
    let block = block.replace("example.com", "example.org");
    let [submit, explain, history] = block.lines().collect::<Vec<_>>()[..] else { panic!("{block}") };
    let daemon = world.start();
    daemon.wait_for_output(" works on ");
    assert!(shell(&world, submit).contains("mail 1 "), "submit prints the id");
    world.database.wait_until_empty();
    assert!(shell(&world, explain).contains("example.org"));
    world.database.wait("the attempt is recorded", |database| {
        let count = "SELECT count(*) FROM dispatch_attempts";
        database.connection.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap() == 1
    });
    let history = shell(&world, history);
    assert!(history.contains("delivered") && history.contains("you@example.org"), "{history}");
    assert_eq!(server.records().delivered_to(), ["you@example.org"]);
    daemon.terminate();
}

/// Returns a text with all absolute paths below another root.
fn below(root: &Path, text: &str) -> String {
    ["/usr/", "/var/", "/etc/", "/run/"].into_iter().fold(text.to_owned(), |text, at| {
        text.replace(&format!(" {at}"), &format!(" {}{at}", root.display()))
    })
}

/// Runs a line of the README as it is installed below another root.
fn run_installed(root: &Path, line: &str) {
    let path = format!("{}:{}", root.join("usr/sbin").display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    let output =
        shell.arg("-ec").arg(line).current_dir(in_repository("")).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_the_readme_installs_is_there() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for at in ["usr/sbin", "etc/systemd/system"] {
        fs::create_dir_all(root.join(at)).unwrap();
    }
    let block = blocks("README.md", "## Install", "sh").remove(1);
    for line in block.lines().filter(|line| !line.starts_with("useradd ")) {
        // With the programs that are built already, and by whoever runs the tests.
        let programs = Path::new(support::tool::PROGRAM).parent().unwrap();
        let line = below(root, line).replace("target/release", programs.to_str().unwrap());
        run_installed(root, &line.replace(" -o cmail", "").replace(" -g cmail", ""));
    }
    for (file, mode) in [
        ("usr/sbin/cmail-dispatchd", 0o755),
        ("usr/sbin/cmail-admin-queue", 0o755),
        ("usr/local/share/man/man8/cmail-dispatchd.8", 0o644),
        ("usr/local/share/man/man8/cmail-admin-queue.8", 0o644),
        ("var/lib/cmail", 0o750),
        ("var/log/cmail", 0o750),
        ("etc/cmail/dispatchd.conf", 0o640),
        ("etc/systemd/system/cmail-dispatchd.service", 0o644),
    ] {
        let found = fs::metadata(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(found.permissions().mode() & 0o777, mode, "{file}");
    }
    // The next commands take the configuration as it comes.
    let config = root.join("etc/cmail/dispatchd.conf");
    let text = below(root, &fs::read_to_string(&config).unwrap());
    fs::write(&config, text.replace("\nuser cmail\n", "\n")).unwrap();
    let block = blocks("README.md", "## Install", "sh").remove(2);
    let commands = block.lines().filter(|line| line.starts_with("cmail-dispatchd "));
    let run = commands.map(|line| run_installed(root, &below(root, line))).count();
    assert_eq!(run, 2, "initdb and check");
    assert!(root.join("var/lib/cmail/master.db").exists());
}

/// The rows of what was measured, without the names of the columns.
fn measured() -> Vec<Vec<String>> {
    let table = fs::read_to_string(in_repository("docs/speed/measured.tsv")).unwrap();
    table.lines().skip(1).map(|row| row.split('\t').map(str::to_owned).collect()).collect()
}

/// Puts a comma between the thousands of a whole number.
fn with_commas(number: &str) -> String {
    let (head, tail) = number.split_at(number.len().saturating_sub(3));
    if head.is_empty() { tail.to_owned() } else { format!("{},{tail}", with_commas(head)) }
}

#[test]
fn the_documentation_tells_what_was_measured() {
    let mut table = String::from(
        "| | version | messages per second | processor ms per message | memory, MiB | measured |\n",
    );
    table.push_str("|---|---|---|---|---|---|\n");
    for row in measured() {
        let [system, version, rate, processor, memory, date] = &row[..] else { panic!("{row:?}") };
        let rate = with_commas(rate);
        table.push_str(&format!("| {system} | {version} | {rate} | {processor} | {memory} | {date} |\n"));
    }
    let page = in_repository("docs/speed.md");
    let text = fs::read_to_string(&page).unwrap();
    let (before, rest) = text.split_once("<!-- measured -->\n").unwrap();
    let (section, after) = rest.split_once("<!-- /measured -->").unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&page, format!("{before}<!-- measured -->\n{table}<!-- /measured -->{after}")).unwrap();
        return;
    }
    assert_eq!(
        section, table,
        "run: UPDATE_DOCS=1 cargo test -p cmail-dispatchd --test daemon documentation::"
    );
}

#[test]
fn the_figures_of_the_readme_are_those_that_were_measured() {
    let design = fs::read_to_string(in_repository("DESIGN.md")).unwrap();
    let readme = fs::read_to_string(in_repository("README.md")).unwrap();
    let rows = measured();
    for figure in [
        with_commas(&rows[0][2]),
        rows[0][3].clone(),
        format!("{} MiB", rows[0][4]),
        with_commas(&rows[1][2]),
    ] {
        assert!(readme.contains(&figure), "README.md does not have {figure}");
        assert!(design.contains(&figure), "DESIGN.md does not have {figure}");
    }
    let (_, reasons) = readme.split_once("## Why\n").unwrap();
    let (reasons, _) = reasons.split_once("<picture>").unwrap();
    for figure in ["20,094", "5,821", "1.5 s", "79 MiB", "0.8 ms"] {
        assert!(reasons.contains(figure) && design.contains(figure), "{figure}");
    }
}

#[test]
fn the_pictures_show_what_was_measured() {
    let directory = tempfile::tempdir().unwrap();
    let mut plot = Command::new("python3");
    plot.arg(in_repository("docs/speed/plot.py")).arg(directory.path());
    let Ok(status) = plot.status() else { return skip("there is no python3") };
    assert!(status.success());
    for name in ["light.svg", "dark.svg"] {
        let drawn = fs::read_to_string(directory.path().join(name)).unwrap();
        let kept = fs::read_to_string(in_repository("docs/speed").join(name)).unwrap();
        assert_eq!(drawn, kept, "run docs/speed/plot.py");
    }
}
