use super::*;
use crate::config::BusyPoll;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/overlan/a.toml"), &Overrides::default())
}

fn error(text: &str) -> String {
    parse(text).expect_err("the text is wrong").to_string()
}

const FULL: &str = r#"
[node]
name = "a"
state_dir = "state"
control = "/tmp/a.sock"
port = 7401
metrics = "127.0.0.1:9464"
attributes = { site = "x" }
[cluster]
name = "prod"
key_file = "cluster.key"
seeds = ["10.2.0.2:7400", "fd00::2"]
quorum = "majority"
allow = ["00112233445566778899aabbccddeeff"]
[[adapter]]
name = "eth0"
class_of_service = "control"
gateway = "10.1.0.1"
[[adapter]]
address = "127.0.1.1"
dscp = 10
[[route]]
subnet = "10.9.0.0/16"
via = "10.1.0.1"
adapter = "eth0"
[policy.assignment]
plugin = "builtin:balanced"
config = { key = "value" }
[policy.sizing]
plugin = "sizing.wasm"
probation = { answers = 9 }
breaker = { faults = 5, seconds = 600 }
[policy.failover]
limits = { answer_ms = 500 }
[[responsibility]]
name = "shard-{0..63}"
replicas = 2
weight = 1.5
requires = { site = "x" }
[[responsibility]]
name = "leader"
weight = 2
"#;

#[test]
fn every_key_is_read() {
    let config = parse(FULL).unwrap();
    assert_eq!(config.name, "a");
    assert_eq!(config.state_dir, Path::new("/etc/overlan/state"));
    assert_eq!(config.security, Security::KeyFile("/etc/overlan/cluster.key".into()));
    assert_eq!(config.seeds[1].to_string(), "[fd00::2]:7401");
    assert_eq!(config.adapters[0].dscp, 48);
    assert_eq!(config.adapters[1].dscp, 10);
    assert_eq!(config.routes[0].subnet.to_string(), "10.9.0.0/16");
    assert_eq!(config.policies[0].source, PluginSource::Builtin("balanced".into()));
    assert_eq!(config.policies[1].source, PluginSource::File("/etc/overlan/sizing.wasm".into()));
    let [first, second, third] = &config.policies[..] else { panic!("three policies") };
    assert_eq!(third.source, PluginSource::Builtin("fast".into()), "the default");
    assert_eq!(third.limits.deadline, Duration::from_millis(500));
    assert_eq!(first.breaker, BreakerConfig::default());
    let ten_minutes = Duration::from_secs(600);
    let patient = BreakerConfig { faults_to_open: 5, first_backoff: ten_minutes, max_backoff: ten_minutes };
    assert_eq!((second.probation.answers, second.breaker), (9, patient));
    assert_eq!(config.journal_bytes, DEFAULT_JOURNAL_BYTES);
    assert_eq!(config.responsibilities.len(), 65);
    assert_eq!(config.responsibilities[63].name, "shard-63");
    assert_eq!(config.responsibilities[63].weight_milli, 1500);
    assert_eq!(config.responsibilities[64].weight_milli, 2000);
}

#[test]
fn errors_name_file_line_and_what_is_allowed() {
    let cases = [
        ("[node]\nname = \"a\"\ncolour = 1\n", ":3: ", "colour"),
        ("[node]\nname = \"a b\"\n", ":2: ", "letters"),
        ("[node]\nname = \"a\"\nport = 70000\n", ":3: ", "1 to 65535"),
        (
            "[node]\nname = \"a\"\nport = \"many\"\n",
            ":3: ",
            "node.port is text; it must be a whole number from 1 to 65535",
        ),
        ("[node]\nname = \"a\\u001b[2J\"\n", ":2: ", "letters"),
        ("[node]\nname = \"a\"\nattributes = { site = \"\\u009b2J\" }\n", ":3: ", "printable"),
        ("[[adapter]]\nname = \"e\"\nclass_of_service = \"\\u202e\"\n", ":3: ", "printable"),
        ("[[responsibility]]\nname = \"x\"\nrequires = { site = \"\\u0007\" }\n", ":3: ", "printable"),
        ("[node]\nname = \"a\"\nstate_dir = \"\"\n", ":3: ", "the path is empty"),
        ("[node]\nname = \"a\"\ncontrol = \"a\\u0000\"\n", ":3: ", "can't be the path of a socket"),
        ("[node]\nname=\"a\"\ncongestion = \"reno\"", ":3: ", "cubic"),
        ("[node]\nname=\"a\"\nbusy_poll = \"always\"", ":3: ", "true, false or \"adaptive\""),
        (
            "[node]\nname=\"a\"\nbusy_poll = 1",
            ":3: ",
            "node.busy_poll is a whole number; it must be true, false or \"adaptive\"",
        ),
        ("[cluster]\nquorum = \"most\"\n[node]\nname=\"a\"", ":2: ", "majority"),
        ("[cluster]\nsecurity = \"off\"\n", ":2: ", "none"),
        ("[cluster]\nseeds = [\n\"10.0.0.1:7400\",\n\"nowhere\"]\n", ":4: ", "ADDRESS:PORT"),
        ("[[adapter]]\ngateway = \"10.0.0.1\"\n", ":1: ", "name or an address"),
        ("[[adapter]]\naddress = \"0.0.0.0\"\n", ":2: ", "no single host"),
        ("[[adapter]]\nname = \"e\"\ndscp = 64\n", ":3: ", "0 to 63"),
        ("[[adapter]]\nname = \"e\"\n[[adapter]]\nname = \"e\"\n", ":3: ", "already"),
        ("[[route]]\nsubnet = \"10.9.0.1/16\"\nvia = \"10.1.0.1\"\nadapter = \"e\"\n", ":2: ", "10.9.0.0/16"),
        ("[[responsibility]]\nname = \"x-{2..1}\"\n", ":2: ", "range"),
        ("[[responsibility]]\nname = \"x\"\nreplicas = 0\n", ":3: ", "1 to 32"),
        ("[[responsibility]]\nname = \"x\"\nweight = -1.0\n", ":3: ", "0 to"),
        ("[[responsibility]]\nname = \"x\"\n[[responsibility]]\nname = \"x\"\n", ":4: ", "twice"),
        ("[policy.sizes]\nplugin = \"builtin:fast\"\n", ":1: ", "sizing"),
        ("[policy.failover]\nplugin = \"builtin:slow\"\n", ":2: ", "builtin:fast"),
        ("[policy.sizing]\nplugin = \"builtin:fast\"\n", ":2: ", "builtin:mtu-fit"),
        ("[policy.sizing]\nplugin = \"\"\n", ":2: ", "leave it out for the default"),
        ("[policy]\njournal = -1\n", ":2: ", "0 to 65536"),
        (
            "[policy]\njournal = 18446744073709551615\n",
            ":2: ",
            "policy.journal is too large; it must be a whole",
        ),
        ("[policy]\njournal = \"no\"\n", ":2: ", "policy.journal is text; it must be a whole number of MiB"),
        ("[policy.sizing]\nplugin = \"x\"\nlimits = { fuel = 1 }\n", ":3: ", "fuel_base"),
        ("[policy.sizing]\nplugin = \"x\"\nlimits = { memory_bytes = 1 }\n", ":3: ", "65536"),
        ("[policy.sizing]\nplugin = \"x\"\nlimits = { answer_ms = -1 }\n", ":3: ", "negative"),
        ("[policy.sizing]\nplugin = \"x\"\nprobation = { seconds = -1 }\n", ":3: ", "0 to"),
        ("[policy.sizing]\nplugin = \"x\"\nbreaker = { faults = 0 }\n", ":3: ", "1 to 1000"),
        ("[policy.sizing]\nplugin = \"x\"\nbreaker = { seconds = 0 }\n", ":3: ", "1 to 86400"),
        (
            "[policy.sizing]\nplugin = \"x\"\nbreaker = { seconds = 9, max_seconds = 8 }\n",
            ":3: ",
            "9 to 86400",
        ),
        ("[node\n", ":1: ", ""),
    ];
    for (text, line, hint) in cases {
        // A key is configured, so that its absence isn't what is reported.
        let text = if text.contains("[cluster]") || text.contains("[node\n") {
            text.to_owned()
        } else {
            format!("{text}\n[cluster]\nkey_file = \"k\"\n")
        };
        let error = error(&text);
        assert!(error.contains(&format!("/etc/overlan/a.toml{line}")), "{error}\n{text}");
        assert!(error.contains(hint), "{error}");
    }
}

#[test]
fn a_value_of_another_type_names_its_key_and_what_is_allowed() {
    let whole = FULL.lines().filter(|line| line.contains(" = "));
    let sections = FULL.lines().scan("", |section, line| {
        if line.starts_with('[') {
            *section = line;
        }
        Some(*section)
    });
    let keys = FULL.lines().zip(sections).enumerate().filter(|(_, (line, _))| line.contains(" = "));
    assert_eq!(keys.clone().count(), whole.count());
    for (number, (line, section)) in keys {
        let (key, _) = line.split_once(" = ").unwrap();
        let path = format!("{}.{key}", section.trim_matches(['[', ']']));
        for (wrong, kind) in [("true", "true or false"), ("1979-05-27", "a date or time"), ("[[1]]", "")] {
            let mut lines: Vec<String> = FULL.lines().map(str::to_owned).collect();
            lines[number] = format!("{key} = {wrong}");
            let error = error(&lines.join("\n"));
            let place = format!("/etc/overlan/a.toml:{}: {path} is {kind}", number + 1);
            assert!(error.starts_with(&place), "{error}");
            assert!(error.contains("; it must be "), "{error}");
        }
    }
}

#[test]
fn a_control_path_is_refused_where_it_stands() {
    let long = "x".repeat(108);
    let refused = |text: &str, overrides: Overrides| {
        let error = Config::parse(text, Path::new("node.toml"), &overrides).unwrap_err().to_string();
        assert!(error.contains("107 bytes"), "{error}");
        error
    };
    let text = format!("[node]\nname = \"a\"\ncontrol = \"{long}\"\n[cluster]\nkey_file = \"k\"\n");
    assert!(refused(&text, Overrides::default()).starts_with("node.toml:3: "));
    let overrides = Overrides { control: Some(long.into()), ..Default::default() };
    assert!(
        refused("[node]\nname = \"a\"\n[cluster]\nkey_file = \"k\"\n", overrides).starts_with("--control: ")
    );
}

#[test]
fn busy_poll_has_three_positions() {
    let position = |value: &str| {
        parse(&format!("[node]\nname = \"a\"\n{value}\n[cluster]\nkey_file = \"k\"\n")).unwrap().busy_poll
    };
    assert_eq!(position(""), BusyPoll::Adaptive);
    assert_eq!(position("busy_poll = \"adaptive\""), BusyPoll::Adaptive);
    assert_eq!(position("busy_poll = true"), BusyPoll::Always);
    assert_eq!(position("busy_poll = false"), BusyPoll::Never);
}

#[test]
fn a_section_of_another_shape_is_explained() {
    let cases = [
        ("node = 1", "node is a whole number; it must be a table"),
        ("adapter = \"eth0\"", "adapter is text; it must be a list of tables, each headed [[adapter]]"),
        ("[adapter]\nname = \"eth0\"", "adapter is a table; it must be a list of tables"),
        ("[policy]\nsizing = \"builtin:mtu-fit\"", "policy.sizing is text; it must be a table with plugin"),
        ("[policy.sizing]\nplugin = \"x\"\nconfig = { a = 1 }", "policy.sizing.config.a is a whole number"),
        (
            "[policy.sizing]\nplugin = \"x\"\nlimits = 1",
            "policy.sizing.limits is a whole number; it must be a table",
        ),
        ("[policy.sizing]\nplugin = \"x\"\nprobation = { faults = \"one\" }", "it must be a whole number"),
        ("[policy.sizing]\nplugin = \"x\"\nbreaker = { faults = \"one\" }", "it must be a whole number"),
        (
            "[policy.sizing]\nplugin = \"x\"\nbreaker = 3",
            "policy.sizing.breaker is a whole number; it must be a table",
        ),
        (
            "[cluster]\nseeds = [\"10.0.0.1\", 7]",
            "cluster.seeds is a whole number; it must be a list of ADDRESS",
        ),
        ("[node]\nattributes = { a.b = \"x\" }", "node.attributes.a is a table; it must be text"),
    ];
    for (text, expected) in cases {
        let error = error(text);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_key_is_asked_for() {
    assert!(error("[node]\nname = \"a\"\n").contains("overlan keygen"));
    let config = parse("[cluster]\nsecurity = \"none\"\n[node]\nname = \"a\"\n").unwrap();
    assert_eq!(config.security, Security::None);
}

#[test]
fn flags_win() {
    let overrides = Overrides {
        name: Some("b".into()),
        port: Some(1),
        seeds: vec!["10.0.0.9".into()],
        addresses: vec!["127.0.1.1".into()],
        security: Some("none".into()),
        ..Overrides::default()
    };
    let config = Config::parse(FULL, Path::new("x.toml"), &overrides).unwrap();
    assert_eq!((config.name.as_str(), config.port), ("b", 1));
    assert_eq!(config.seeds, ["10.0.0.9:1".parse().unwrap()]);
    assert_eq!(config.adapters.len(), 1);
    assert_eq!(config.security, Security::None);
    let wrong = Overrides { name: Some("b c".into()), ..Overrides::default() };
    assert!(
        Config::parse(FULL, Path::new("x.toml"), &wrong).unwrap_err().to_string().starts_with("--name: ")
    );
}

#[test]
fn defaults_are_complete() {
    let config = parse("[node]\nname = \"a\"\n[cluster]\nkey_file = \"k\"\n").unwrap();
    assert_eq!(config.port, DEFAULT_PORT);
    assert!(config.state_dir.ends_with("overlan/a"));
    assert!(config.control.unwrap().ends_with("a.sock"));
}
