//! What Git hosts, Helm's storage and the API server answer.

use super::Row;

/// Repositories, files and the scalars in them.
pub(super) const GIT: &[Row] = &[
    (
        "already-there",
        "Git carries the wanted version already, by a commit of somebody else.",
        "Decide whose commit it is; make a new request if it still needs to be released.",
    ),
    ("git-branch-missing", "The branch is not there.", "Correct spec.git.repositories, or make the branch."),
    (
        "git-cache",
        "The operator's copy of the repository could not be kept.",
        "Check the space of the operator's cache volume.",
    ),
    (
        "git-commit-unknown",
        "A commit that should be there is not.",
        "Was the branch rewritten? Windlass never forces; decide by hand.",
    ),
    (
        "git-credentials",
        "The Secret with the credentials is missing or incomplete.",
        "Make it, in the namespace of the app, with the keys that Flux uses.",
    ),
    (
        "git-denied",
        "The host refused the push or the fetch.",
        "Check the rights of the credentials, and the rules of the branch.",
    ),
    (
        "git-history-too-long",
        "The commit was not found within the history that is searched.",
        "Make a new request, closer to the head.",
    ),
    (
        "git-files-refused",
        "The files of a folder cannot be read in full: too many, too big, a link, or no text.",
        "Let the Kustomization read a smaller folder of plain files.",
    ),
    ("git-race-lost", "Others pushed again and again in between.", "Nothing: it is tried again."),
    (
        "git-redirected",
        "The host sends elsewhere, and redirects are not followed.",
        "Write the address in the message into spec.git.repositories, if the repository is there now.",
    ),
    ("git-request-refused", "The request asks for something that is never done to a repository.", "See the message."),
    (
        "git-signing",
        "Commits must be signed, and Windlass cannot sign here.",
        "Turn signing off for this branch, or upgrade by hand.",
    ),
    (
        "git-too-much",
        "The repository sends more than is taken.",
        "Keep large files out of the branch that is delivered, or give the app a repository of its own.",
    ),
    ("git-unreachable", "The host does not answer.", "Check the network of the operator; it is tried again."),
    ("git-untrusted", "The host is not who it should be.", "Check known_hosts or caFile in the Secret."),
    (
        "git-url-refused",
        "The address of the repository is not one that is used.",
        "Use https, ssh, or what the operator's flags allow.",
    ),
    (
        "path-not-allowed",
        "The file is outside of the paths that may be written.",
        "Extend spec.git.repositories[].paths.",
    ),
    ("pin-alias", "The scalar is a YAML alias: a change would reach elsewhere too.", "Write the value out."),
    ("pin-bad-part", "The new value is not fit for this part of an image reference.", "Check the version."),
    ("pin-block-scalar", "The scalar is a block of several lines.", "Write it on one line."),
    ("pin-document-ambiguous", "Several documents of the file match.", "Name kind and name, as in HelmRelease/notes."),
    ("pin-document-not-found", "No document of the file matches.", "Correct `object` of the pin."),
    ("pin-duplicate-key", "The key is there twice.", "Correct the file."),
    ("pin-empty-value", "The value is empty.", "Write a version."),
    ("pin-escaped", "The scalar is written with escapes.", "Write it plainly."),
    ("pin-file-folder", "The path is a folder.", "Correct `path` of the pin."),
    ("pin-file-missing", "The file is not there.", "Correct `path` of the pin."),
    ("pin-file-submodule", "The path is a submodule.", "Name the repository of the submodule."),
    ("pin-file-symlink", "The path is a symbolic link.", "Name the file itself."),
    ("pin-file-too-large", "The file is too large.", "Split it."),
    ("pin-invalid-yaml", "The file is not valid YAML.", "Correct it."),
    ("pin-limit", "The file is nested too deeply or holds too many documents.", "Split it."),
    ("pin-merge-key", "The scalar comes from a merge key.", "Write the value out."),
    (
        "pin-no-such-part",
        "The image reference has no tag or digest to change.",
        "Correct `part` of the pin, or the file.",
    ),
    ("pin-not-utf8", "The file is not UTF-8 text.", "Save it as UTF-8."),
    ("pin-not-an-image", "The scalar is not an image reference.", "Correct `part` of the pin."),
    ("pin-oracle-mismatch", "The change would have changed more than the scalar.", "Please report it, with the file."),
    ("pin-path-not-found", "The field is not in the document.", "Correct `field` of the pin."),
    ("pin-refused", "The scalar cannot be changed safely.", "See the message."),
    ("pin-selector-ambiguous", "Several list items match.", "Select by a key that differs."),
    ("pin-shared-anchor", "The scalar is anchored and used elsewhere.", "Write the value out."),
    ("pin-syntax", "The path of the field cannot be read.", "Write it as in spec.containers[name=notes].image."),
    ("pin-tagged", "The scalar has a YAML tag.", "Remove the tag."),
    ("pin-template", "The scalar is a template.", "Name the place where the value is written."),
    ("pin-unexpected-diff", "The change would have changed other lines too.", "Please report it, with the file."),
    ("pin-wrong-shape", "The field is not a scalar.", "Correct `field` of the pin."),
];

/// Releases that Helm has stored.
pub(super) const HELM: &[Row] = &[
    (
        "helm-wrong-type",
        "The Secret of the newest release is of another type.",
        "Check that Helm keeps its releases in Secrets (HELM_DRIVER), and who made this one.",
    ),
    ("helm-no-payload", "The Secret of the newest release holds none.", "Find out who emptied it; restore it."),
    (
        "helm-wrong-name",
        "The Secret holds another release or revision than its name says.",
        "Somebody copied or renamed it: delete the copy.",
    ),
    (
        "helm-not-base64",
        "The newest release is damaged: it is not base64.",
        "See whether `helm get all` can read it; if not, restore the Secret.",
    ),
    (
        "helm-not-gzip",
        "The newest release is damaged: it cannot be inflated.",
        "See whether `helm get all` can read it; if not, restore the Secret.",
    ),
    (
        "helm-not-a-release",
        "The newest release is not what Helm writes.",
        "See whether `helm get all` can read it; if not, restore the Secret.",
    ),
    (
        "helm-too-large",
        "The newest release is larger than what is read.",
        "No chart is that large: find out who wrote the Secret.",
    ),
];

/// Calls.
pub(super) const API: &[Row] = &[
    ("already-exists", "An object of that name is there already.", "Find out whose it is."),
    ("api-forbidden", "A right is missing.", "Grant the verb on the resource that the message names."),
    ("api-invalid", "The API server refuses the object.", "See the message for the field."),
    (
        "api-not-found",
        "The object or its kind is not there.",
        "Check the name, the namespace, and that the CRDs are installed: `windlass crd`.",
    ),
    ("api-throttled", "The API server asks for fewer calls.", "Nothing: it is tried again."),
    ("api-unauthorized", "The credentials are not accepted.", "Log in again."),
    ("api-unavailable", "The API server cannot answer at the moment.", "Nothing: it is tried again."),
    ("api-unreachable", "The API server cannot be reached.", "Check the network and the kubeconfig."),
    ("api-unreadable", "The answer cannot be read.", "Are the CRDs of this version installed? `windlass crd`"),
    ("changed-meanwhile", "Somebody changed the object in between.", "Nothing: it is tried again."),
    ("quota-exceeded", "A quota of the namespace is used up.", "Raise it, or free some of it."),
];
