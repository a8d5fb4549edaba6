//! The rig's servers: built from pinned Go modules, cached by content outside the clone.
//!
//! A cache entry is named by the hash of everything that goes into it, is made under another name and renamed when it is
//! complete. So a killed build leaves no half entry, and a changed pin never meets an old binary.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

/// Part of the hash; change it when the building itself changes.
const RECIPE: &str = "1";

/// Custom resource definitions come from the same modules as the servers, or from these when they cannot be built.
const HELM_CONTROLLER: &str = "github.com/fluxcd/helm-controller@v1.6.3";
const SOURCE_CONTROLLER: &str = "github.com/fluxcd/source-controller@v1.9.6";

/// One Go module and what is kept of it.
struct Artefact {
    name: &'static str,
    go_mod: &'static str,
    go_sum: &'static str,
    ld_flags: &'static str,
    finish: fn(&Workshop) -> anyhow::Result<()>,
}

const SERVERS: Artefact = Artefact {
    name: "servers",
    go_mod: include_str!("../go/servers/go.mod"),
    go_sum: include_str!("../go/servers/go.sum"),
    // Charts and clients ask the API server for its version; without this it is v0.0.0.
    ld_flags: "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
               -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36",
    finish: finish_servers,
};

const GITEA: Artefact = Artefact {
    name: "gitea",
    go_mod: include_str!("../go/gitea/go.mod"),
    go_sum: include_str!("../go/gitea/go.sum"),
    // Clients refuse a server that cannot name its version.
    ld_flags: "-s -w -X main.Version=1.26.0",
    finish: finish_gitea,
};

/// Where the built servers are.
#[derive(Debug, Clone)]
pub struct Binaries {
    servers: PathBuf,
    gitea: PathBuf,
    postgres: PathBuf,
}

impl Binaries {
    /// Finds what has been built.
    ///
    /// # Errors
    /// When something is missing; the message says what to run.
    pub fn locate() -> anyhow::Result<Self> {
        let cache = cache_dir()?;
        let (servers, gitea) = (SERVERS.directory(&cache), GITEA.directory(&cache));
        for directory in [&servers, &gitea] {
            if !directory.is_dir() {
                bail!("the rig is not built ({} does not exist): run `cargo xtask testbed build`", directory.display());
            }
        }
        for tool in ["setpriv", "openssl", "git"] {
            if find_program(tool).is_none() {
                bail!("the rig needs `{tool}`: run `cargo xtask testbed build` as root, or install it");
            }
        }
        let postgres =
            postgres_dir().context("the rig needs PostgreSQL: install the Debian package `postgresql`, or its like")?;
        Ok(Self { servers, gitea, postgres })
    }

    /// Builds what is missing: about ten minutes the first time, nothing after that.
    ///
    /// # Errors
    /// When Go or a Debian package is missing and cannot be installed, or a build fails.
    pub fn build() -> anyhow::Result<Self> {
        install_debian_packages()?;
        let cache = cache_dir()?;
        fs::create_dir_all(&cache)?;
        // Released by the kernel when this process ends, however it ends.
        let lock = File::create(cache.join("lock"))?;
        lock.lock().context("waiting for another build of the rig")?;
        SERVERS.build(&cache)?;
        GITEA.build(&cache)?;
        Self::locate()
    }

    /// The path of one of the servers.
    pub(crate) fn server(&self, name: &str) -> PathBuf {
        self.servers.join("bin").join(name)
    }

    /// The custom resource definitions of the servers, one YAML text per file.
    pub(crate) fn crds(&self) -> anyhow::Result<Vec<String>> {
        let mut paths: Vec<_> =
            fs::read_dir(self.servers.join("crds"))?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
        paths.sort();
        paths.iter().map(|path| fs::read_to_string(path).with_context(|| path.display().to_string())).collect()
    }

    /// Helm, for tests and for the stand-in of helm-controller.
    #[must_use]
    pub fn helm(&self) -> PathBuf {
        self.server("helm")
    }

    pub(crate) fn gitea(&self) -> PathBuf {
        self.gitea.join("bin/gitea")
    }

    /// Gitea's templates and texts.
    pub(crate) fn gitea_static(&self) -> PathBuf {
        self.gitea.join("static")
    }

    /// A program of PostgreSQL.
    pub(crate) fn postgres(&self, program: &str) -> PathBuf {
        self.postgres.join(program)
    }
}

/// Where everything is cached: `$WINDLASS_CACHE_DIR/rig`, or `windlass/rig` in the user's cache directory.
pub(crate) fn cache_dir() -> anyhow::Result<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("WINDLASS_CACHE_DIR")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("windlass")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/windlass")))
        .context("none of WINDLASS_CACHE_DIR, XDG_CACHE_HOME and HOME is set")?;
    Ok(std::path::absolute(base)?.join("rig"))
}

impl Artefact {
    fn directory(&self, cache: &Path) -> PathBuf {
        let mut hash = Sha256::new();
        for part in [RECIPE, self.name, self.go_mod, self.go_sum, self.ld_flags, HELM_CONTROLLER, SOURCE_CONTROLLER] {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        cache.join(hash.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
    }

    /// The caller holds the lock, so whatever is unfinished belongs to a build that was killed.
    fn build(&self, cache: &Path) -> anyhow::Result<()> {
        let done = self.directory(cache);
        if done.is_dir() {
            return Ok(());
        }
        let root = cache.join(format!("unfinished-{}", self.name));
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        let shop = Workshop { source: root.join("source"), result: root.join("result") };
        fs::create_dir_all(&shop.source)?;
        fs::create_dir_all(shop.result.join("bin"))?;
        fs::write(shop.source.join("go.mod"), self.go_mod)?;
        fs::write(shop.source.join("go.sum"), self.go_sum)?;
        tracing::info!(module = self.name, "building; the first time this takes minutes");
        let output = format!("-o={}/", shop.result.join("bin").display());
        let flags = format!("-ldflags={}", self.ld_flags);
        let status = shop
            .go(&["build", "-trimpath", "-buildvcs=false", "-mod=readonly", &flags, &output, "tool"])?
            // Progress and errors go to our stderr; stdout may be read by a script.
            .stdout(Stdio::null())
            .status()
            .context("running go build")?;
        if !status.success() {
            bail!("building the rig's {} failed ({status}); see above", self.name);
        }
        (self.finish)(&shop)?;
        fs::rename(&shop.result, &done).with_context(|| format!("moving the build to {}", done.display()))?;
        fs::remove_dir_all(&root)?;
        Ok(())
    }
}

/// Where one module is being built.
struct Workshop {
    source: PathBuf,
    result: PathBuf,
}

impl Workshop {
    fn go(&self, args: &[&str]) -> anyhow::Result<Command> {
        let Some(go) = find_program("go") else {
            bail!(
                "the rig's servers are built with Go 1.26 or newer, and there is no `go` in PATH: see https://go.dev/dl"
            );
        };
        let mut command = Command::new(go);
        // The flags above are the whole recipe: nothing of the user's own Go settings may change what the hash names.
        command.args(args).current_dir(&self.source).env("CGO_ENABLED", "0").env("GOFLAGS", "").env("GOWORK", "off");
        Ok(command)
    }

    fn output(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = self.go(args)?.stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            bail!("go {} failed ({}): {}", args.join(" "), output.status, String::from_utf8_lossy(&output.stdout));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The folder of a module that the build depends on.
    fn module(&self, path: &str) -> anyhow::Result<PathBuf> {
        Ok(PathBuf::from(self.output(&["list", "-m", "-f={{.Dir}}", path])?.trim()))
    }

    /// The folder of a module that only its files are wanted of; Go checks it against its checksum database.
    fn download(&self, module_at_version: &str) -> anyhow::Result<PathBuf> {
        let text = self.output(&["mod", "download", "-json", module_at_version])?;
        let answer: serde_json::Value = serde_json::from_str(&text)?;
        let folder = answer.get("Dir").and_then(serde_json::Value::as_str);
        Ok(PathBuf::from(folder.with_context(|| format!("{module_at_version} has no folder: {text}"))?))
    }
}

fn finish_servers(shop: &Workshop) -> anyhow::Result<()> {
    let bin = shop.result.join("bin");
    // Go names a binary after the last part of its package.
    fs::rename(bin.join("server"), bin.join("etcd"))?;
    let crds = shop.result.join("crds");
    fs::create_dir(&crds)?;
    let folders = [
        shop.module("github.com/kubernetes-csi/external-snapshotter/client/v8")?.join("config/crd"),
        shop.module("github.com/fluxcd/kustomize-controller")?.join("config/crd/bases"),
        shop.download(SOURCE_CONTROLLER)?.join("config/crd/bases"),
        shop.download(HELM_CONTROLLER)?.join("config/crd/bases"),
    ];
    for folder in folders {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if let Some(name) = path.file_name()
                && name != "kustomization.yaml"
            {
                fs::write(crds.join(name), fs::read(&path)?)?;
            }
        }
    }
    Ok(())
}

fn finish_gitea(shop: &Workshop) -> anyhow::Result<()> {
    let module = shop.module("code.gitea.io/gitea")?;
    for folder in ["templates", "options", "public"] {
        copy_readable(&module.join(folder), &shop.result.join("static").join(folder))?;
    }
    Ok(())
}

/// Go's module cache is read-only; a copy of its modes could not be removed.
fn copy_readable(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_readable(&entry.path(), &target)?;
        } else {
            fs::write(target, fs::read(entry.path())?)?;
        }
    }
    Ok(())
}

/// Whether `go` can be called at all.
#[must_use]
pub fn go_is_installed() -> bool {
    find_program("go").is_some()
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Debian keeps the server programs of PostgreSQL out of PATH, in a folder per version.
fn postgres_dir() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok();
    let debian = versions
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("initdb").is_file())
        .max_by_key(|(version, _)| *version)
        .map(|(_, bin)| bin);
    debian.or_else(|| Some(find_program("postgres")?.parent()?.to_owned()))
}

/// Installs what is missing of Debian's packages, where that is possible.
fn install_debian_packages() -> anyhow::Result<()> {
    let wanted = [
        (postgres_dir().is_some(), "postgresql"),
        (find_program("setpriv").is_some(), "util-linux"),
        (find_program("openssl").is_some(), "openssl"),
        (find_program("git").is_some(), "git"),
    ];
    let missing: Vec<&str> = wanted.iter().filter(|(there, _)| !there).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() || find_program("apt-get").is_none() {
        bail!("the rig needs the Debian packages {}; install them, or run this as root", missing.join(", "));
    }
    for args in [vec!["update"], [vec!["install", "-y", "--no-install-recommends"], missing].concat()] {
        let status = Command::new("apt-get")
            .args(&args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::null())
            .status()
            .context("running apt-get")?;
        if !status.success() {
            bail!("apt-get {} failed ({status})", args.join(" "));
        }
    }
    Ok(())
}
