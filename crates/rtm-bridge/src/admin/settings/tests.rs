#![allow(clippy::unwrap_used)]

use super::*;

/// Holds: wherever a configuration may have a secret, or tell where one is, nothing of it is shown; and hosts are.
#[test]
fn no_secret_is_shown() {
    let dir = tempfile::Builder::new().prefix("canary").tempdir().unwrap();
    let file = dir.path().join("canary");
    std::fs::write(&file, "canary").unwrap();
    let text = r#"
            [journal]
            dir = "/var/lib/rtm-bridge"
            [[apps]]
            name = "main"
            app_id = "canary0cbca0098dff4323566daa89675"
            auth = { basic = { key = "canary-key", secret = "canary-secret" } }
            proxy = "http://canary:canary@proxy.example:3128"
            ca_file = "FILE"
            regions = ["eu-west-1", { name = "x", base_url = "https://agora.example:8443/canary/path" }]
            [[apps]]
            name = "second"
            app_id = "canary1cbca0098dff4323566daa89675"
            auth = { token = { uid = "canary", token = "canary" } }
            regions = ["eu-west-1"]
            [[apps]]
            name = "third"
            app_id = "canary2cbca0098dff4323566daa89675"
            auth = { agora_token = { token_file = "FILE" } }
            regions = ["eu-west-1"]
            [sinks.kafka]
            brokers = ["kafka.example:9092"]
            options = { "sasl.password" = "canary" }
            option_files = { "ssl.key.password" = "FILE" }
            option_env = { "sasl.username" = "PATH" }
            [sinks.nats]
            servers = ["nats://nats.example:4222"]
            stream = "RTM"
            auth = { password = { user = "canary", password = "canary" } }
            tls = { ca_file = "FILE", cert_file = "FILE", key_file = "FILE" }
            "#;
    let config = Config::parse(&text.replace("FILE", file.to_str().unwrap())).unwrap();
    let shown = serde_json::to_string(&Settings::of(&config)).unwrap();
    assert!(!shown.to_lowercase().contains("canary"), "{shown}");
    for expected in [
        "eu-west-1, x at https://agora.example:8443",
        "kafka.example:9092",
        "sasl.password, ssl.key.password, sasl.username",
        "nats://nats.example:4222",
    ] {
        assert!(shown.contains(expected), "{expected} in {shown}");
    }
}
