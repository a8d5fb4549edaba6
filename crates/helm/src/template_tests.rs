//! The child that stands for Helm is a shell script. The real one is in the rig's tests.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;
use tempfile::TempDir;

use super::*;

fn request() -> TemplateRequest {
    TemplateRequest {
        release: "notes".into(),
        namespace: "apps".into(),
        chart: "notes".into(),
        version: "1.2.0".into(),
        repository: "https://charts.example.com/stable/".into(),
        values: json!({ "password": "geheim", "port": 8080 }),
        kube_version: "v1.36.3".into(),
    }
}

/// A program that does what `script` says.
fn helm(folder: &TempDir, script: &str) -> HelmCli {
    let program = folder.path().join("helm");
    // Under another name first: a program that is open for writing cannot be run.
    let draft = folder.path().join("draft");
    std::fs::write(&draft, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(draft, &program).unwrap();
    HelmCli::new(&program)
}

/// A script may be inherited, while it is being written, by the child of another test.
async fn template(helm: &HelmCli) -> Result<String, HelmError> {
    for _ in 0..50 {
        match helm.template(&request()).await {
            Err(HelmError::NoHelm { why }) if why.contains("busy") => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            result => return result,
        }
    }
    panic!("the script stays busy")
}

#[tokio::test]
async fn helm_gets_options_and_names_apart_and_the_values_in_a_file() {
    let folder = TempDir::new().unwrap();
    let script = r#"for one in "$@"; do echo "$one"; case "$one" in --values=*) cat "${one#--values=}"; echo;; esac; done
        pwd; env | sort | cut -d= -f1 | tr '\n' ' '; [ -z "$(ls)" ] && echo empty"#;
    let printed = template(&helm(&folder, script)).await.unwrap();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(
        lines[..6],
        ["template", "--no-hooks", "--is-upgrade", "--namespace=apps", "--version=1.2.0", "--kube-version=v1.36.3"]
    );
    assert_eq!(lines[6], "--repo=https://charts.example.com/stable");
    assert!(lines[7].starts_with("--values=") && lines[8] == r#"{"password":"geheim","port":8080}"#, "{lines:?}");
    assert_eq!(lines[9..12], ["--", "notes", "notes"]);
    assert!(printed.ends_with("empty\n"), "{printed}");
    let variables =
        ["GOMEMLIMIT", "HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME", "HOME", "PATH", "PWD", "TMPDIR"];
    let found: Vec<&str> = lines[13].split(' ').filter(|name| *name != "empty" && *name != "_").collect();
    assert_eq!(found, variables);
    let home = Path::new(lines[7].trim_start_matches("--values=")).parent().unwrap();
    assert!(!home.exists(), "nothing is left behind");
}

#[test]
fn a_chart_of_a_registry_is_one_address() {
    let request = TemplateRequest { repository: "oci://ghcr.io/x/charts".into(), chart: "a/notes".into(), ..request() };
    request.check().unwrap();
    let arguments = request.arguments(Path::new("/v"));
    assert_eq!(arguments.last().unwrap(), "oci://ghcr.io/x/charts/a/notes");
    assert!(!arguments.iter().any(|one| one.to_string_lossy().starts_with("--repo")));
}

#[test]
fn what_is_no_chart_of_an_open_repository_is_refused() {
    for (repository, chart) in [
        ("file:///charts", "notes"),
        ("/charts", "notes"),
        ("https://user:pass@charts.example.com", "notes"),
        ("https://charts.example.com/?token=x", "notes"),
        ("https://charts.example.com/ x", "notes"),
        ("https://charts.example.com", "./notes"),
        ("https://charts.example.com", "/etc/passwd"),
        ("https://charts.example.com", "x/notes"),
        ("https://charts.example.com", "https://other.example.com/notes.tgz"),
        ("https://charts.example.com", "-notes"),
        ("https://charts.example.com", ""),
        ("oci://charts.example.com", "x/../notes"),
        ("oci://charts.example.com", "notes@sha256:abc"),
    ] {
        let request = TemplateRequest { repository: repository.into(), chart: chart.into(), ..request() };
        let error = request.check().unwrap_err();
        assert_eq!(error.code(), "helm-template-refused", "{repository} {chart}");
        assert!(!error.to_string().contains("pass") && !error.to_string().contains("token"), "{error}");
    }
    assert!(TemplateRequest { release: "a b".into(), ..request() }.check().is_err());
}

/// Whether there is such a process. The shell asks, because not every system has `/proc`.
async fn is_there(pid: &str) -> bool {
    let mut ask = Command::new("sh");
    ask.arg("-c").arg(format!("kill -0 {pid}")).stderr(Stdio::null());
    ask.status().await.unwrap().success()
}

#[tokio::test]
async fn helm_that_is_not_there_or_fails_or_hangs_or_prints_without_end_is_an_error() {
    assert_eq!(HelmCli::new(Path::new("/nowhere/helm")).template(&request()).await.unwrap_err().code(), "helm-missing");
    let folder = TempDir::new().unwrap();
    let failing = helm(&folder, "echo 'level=WARN msg=geheim' >&2; echo 'Error: no geheim at port 8080' >&2; exit 1");
    let error = template(&failing).await.unwrap_err();
    assert_eq!(error, HelmError::TemplateFailed { why: "no *** at port ***".into() });
    let mut endless = helm(&folder, "while :; do echo x; done");
    endless.output_limit = 1000;
    assert_eq!(template(&endless).await.unwrap_err(), HelmError::TooLarge { limit: 1000 });
    // More complaints than a pipe holds do not make it wait for us.
    let loud = helm(&folder, "head -c 1000000 /dev/zero >&2; echo done");
    assert_eq!(template(&loud).await.unwrap(), "done\n");
    let hanging = helm(&folder, "echo $$ > pid.$$; cp pid.$$ ${0%/*}/pid; exec sleep 60");
    // Long enough for the shell to say who it is, on a busy machine too.
    let hanging = HelmCli { timeout: Duration::from_secs(3), ..hanging };
    assert_eq!(template(&hanging).await.unwrap_err().code(), "helm-timeout");
    let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap();
    for _ in 0..100 {
        if !is_there(pid.trim()).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it was not killed");
}

#[tokio::test]
async fn the_same_chart_with_the_same_values_is_not_fetched_again_and_again() {
    let folder = TempDir::new().unwrap();
    let counting = helm(&folder, "echo x >> ${0%/*}/runs; echo done");
    for _ in 0..3 {
        template(&counting).await.unwrap();
    }
    let runs = || std::fs::read_to_string(folder.path().join("runs")).unwrap().lines().count();
    assert_eq!(runs(), 1);
    counting.template(&TemplateRequest { version: "1.3.0".into(), ..request() }).await.unwrap();
    assert_eq!(runs(), 2);
}

#[test]
fn complaints_about_templates_tell_the_place_and_nothing_else() {
    let values = json!({ "a": { "b": ["geheim"] } });
    for (complaint, shown) in [
        (
            "Error: execution error at (notes/templates/b.yaml:1:6): pw Z2VoZWlt\n\nUse --debug",
            "notes/templates/b.yaml:1:6",
        ),
        (
            "Error: notes/templates/b.yaml:1:13\n  executing \"x\" at <.Values.a>:\n  geheim",
            "notes/templates/b.yaml:1:13",
        ),
        ("Error: YAML parse error on notes/templates/b.yaml: error", "notes/templates/b.yaml"),
    ] {
        let expected = format!("the chart's template {shown} cannot be rendered with the values");
        assert_eq!(problem(complaint, &values), expected);
    }
    let schema = "Error: values don't meet the specifications of the schema(s):\nnotes:\n- at '/a': got geheim";
    assert_eq!(problem(schema, &values), "the values do not fit the chart's schema");
    assert_eq!(problem("Error: geheimnis", &values), "***nis");
    assert_eq!(problem("panic: geheim", &values), "it does not say why");
    assert!(!format!("{:?}", request()).contains("geheim"));
}
