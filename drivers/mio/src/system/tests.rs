use super::*;
use crate::config::Environment;
use crate::testing::{authority, trust_file};
use cmail_delivery::address::Domain;
use std::fs::{rename, write};

/// A system in a directory.
struct Scene {
    directory: tempfile::TempDir,
    system: System,
}

impl Scene {
    /// A configuration with further lines; the directory has a file `trust`, that may stand in them.
    fn new(lines: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        write(path("resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
        write(path("hosts"), "192.0.2.3 relay.example\n").unwrap();
        rename(trust_file(&authority()).into_temp_path().keep().unwrap(), path("trust")).unwrap();
        let environment = Environment {
            host_name: Ok("host.example".into()),
            resolv_conf: path("resolv.conf"),
            directory: Ok("/".into()),
            needs_log: true,
        };
        let trust = path("trust");
        let text = format!("database /db\ntls_trustfile {}\n{lines}", trust.display());
        let config = Config::from_octets(Path::new("test.conf"), text.as_bytes(), &environment).unwrap();
        let system = System::new(&config, &path("hosts"));
        Self { directory, system }
    }

    fn write(&self, name: &str, text: &str) {
        // Another file in its place, as careful programs do it.
        let draft = self.directory.path().join("draft");
        write(&draft, text).unwrap();
        rename(draft, self.directory.path().join(name)).unwrap();
    }

    fn look(&mut self) -> (Option<Vec<String>>, bool, bool) {
        self.read(Occasion::Schedule)
    }

    /// The name servers, and whether there are names and trusted certificates.
    fn read(&mut self, occasion: Occasion) -> (Option<Vec<String>>, bool, bool) {
        let news = self.system.read(occasion);
        let servers = |settings: ResolverSettings| settings.servers.iter().map(ToString::to_string).collect();
        (news.resolver.map(servers), news.hosts.is_some(), news.tls.is_some())
    }
}

fn servers(servers: &[&str]) -> Option<Vec<String>> {
    Some(servers.iter().map(|server| format!("{server}:53")).collect())
}

#[test]
fn what_has_not_changed_is_no_news_unless_it_is_asked_for() {
    let mut scene = Scene::new("");
    for _ in 0..3 {
        assert_eq!(scene.look(), (None, false, false));
    }
    assert_eq!(scene.read(Occasion::Request), (servers(&["192.0.2.1"]), true, true));
}

#[test]
fn each_file_is_read_when_it_has_changed() {
    let mut scene = Scene::new("");
    scene.look();
    scene.write("resolv.conf", "nameserver 192.0.2.2\n");
    assert_eq!(scene.look(), (servers(&["192.0.2.2"]), false, false));
    scene.write("hosts", "192.0.2.4 relay.example\n");
    let news = scene.system.read(Occasion::Schedule);
    let relay = Domain::parse("relay.example").unwrap();
    assert_eq!(news.hosts.unwrap()[&relay], ["192.0.2.4".parse::<std::net::IpAddr>().unwrap()]);
    scene.write("trust", &authority().pem());
    assert_eq!(scene.look(), (None, false, true));
    assert_eq!(scene.look(), (None, false, false));
}

#[test]
fn a_change_between_the_configuration_and_the_first_look_is_seen() {
    let mut scene = Scene::new("");
    scene.write("resolv.conf", "nameserver 192.0.2.2\n");
    assert_eq!(scene.look(), (servers(&["192.0.2.2"]), false, false));
}

#[test]
fn what_cannot_be_read_stays_as_it_was() {
    let mut scene = Scene::new("");
    scene.look();
    scene.write("trust", "no certificate\n");
    for name in ["resolv.conf", "hosts"] {
        let path = scene.directory.path().join(name);
        fs::remove_file(&path).unwrap();
        fs::create_dir(path).unwrap();
    }
    assert_eq!(scene.look(), (None, false, false));
    assert_eq!(scene.read(Occasion::Request), (servers(&["192.0.2.1"]), false, false));
}

#[test]
fn a_link_that_leads_elsewhere_and_what_it_leads_to_are_watched() {
    let mut scene = Scene::new("");
    let path = |name: &str| scene.directory.path().join(name);
    write(path("first"), "nameserver 192.0.2.5\n").unwrap();
    write(path("second"), "nameserver 192.0.2.6\n").unwrap();
    let link = |scene: &Scene, to: &str| {
        let draft = scene.directory.path().join("draft");
        std::os::unix::fs::symlink(scene.directory.path().join(to), &draft).unwrap();
        rename(draft, scene.directory.path().join("resolv.conf")).unwrap();
    };
    link(&scene, "first");
    assert_eq!(scene.look().0, servers(&["192.0.2.5"]));
    scene.write("first", "nameserver 192.0.2.7\n");
    assert_eq!(scene.look().0, servers(&["192.0.2.7"]));
    link(&scene, "second");
    assert_eq!(scene.look().0, servers(&["192.0.2.6"]));
}

#[test]
fn servers_of_the_configuration_stay_and_options_of_the_file_count() {
    let mut scene = Scene::new("resolver 192.0.2.9\n");
    scene.look();
    scene.write("resolv.conf", "nameserver 192.0.2.2\noptions timeout:7 attempts:4\n");
    let settings = scene.system.read(Occasion::Schedule).resolver.unwrap();
    assert_eq!(settings.servers, ["192.0.2.9:53".parse::<std::net::SocketAddr>().unwrap().into()]);
    assert_eq!((settings.timeout, settings.attempts), (Duration::from_secs(7), 4));
}

#[test]
fn the_files_are_looked_at_as_often_as_the_outbox_or_more_often() {
    for (line, seconds) in [("interval 3\n", 3), ("interval 3600\n", 10)] {
        let mut scene = Scene::new(line);
        scene.look();
        scene.write("hosts", "192.0.2.4 relay.example\n");
        let first = scene.system.next_look();
        assert!(scene.system.look(first - Duration::from_millis(1)).is_none());
        assert!(scene.system.look(first).unwrap().hosts.is_some());
        assert_eq!(scene.system.next_look(), first + Duration::from_secs(seconds));
    }
}
