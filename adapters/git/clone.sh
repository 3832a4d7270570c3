# The clone phase, for any POSIX sh; clone.py puts the exit codes above it as variables and everything else into the
# environment. What a user or a repository wrote is only ever used inside quotes, and never becomes part of the script.
# Needs git, find and coreutils: no awk, whose program is a link that a bare /usr does not have.
set -fu
umask 022
newline='
'

# Of curl's and git's files in a home folder, .netrc and the rest, none is wanted.
HOME=/nonexistent XDG_CONFIG_HOME=/nonexistent
export HOME XDG_CONFIG_HOME

# Runs git and keeps the end of what it says in $said.
try() {
    said=$({
        git "$@" </dev/null 2>&1
        printf '\n%d' "$?"
    } | tail -c 65536)
    status=${said##*"$newline"}
    said=${said%"$newline"*}
    return "$status"
}

# Sets $fault to what $said means. Lines of the server's own, which git marks, could imitate any of this; among them are
# those of the egress proxy where it is asked for http.
judge() {
    case $said in
    *"remote: Switchyard: "*" may not be opened"*)
        fault=$HOST_REFUSED
        return
        ;;
    *"remote: Switchyard: "*" has no address"* | *"remote: Switchyard: "*" cannot be reached"*)
        fault=$UNREACHABLE
        return
        ;;
    esac
    case $(printf '%s\n' "$said" | sed '/^remote:/d') in
    *"transport '"*"' not allowed"*) fault=$PROTOCOL_REFUSED ;;
    *"File too large"* | *"No space left on device"* | *"Disk quota exceeded"*) fault=$TOO_LARGE ;;
    *"Operation too slow"* | *"timed out"*) fault=$STALLED ;;
    *"CONNECT tunnel failed, response 403"* | *"HTTP code 403 from proxy"*) fault=$HOST_REFUSED ;;
    *"Could not resolve"* | *"Couldn't resolve"* | *"ailed to connect to"* | *"Couldn't connect"* | \
        *"Connection refused"* | *"CONNECT tunnel failed"* | *"from proxy after CONNECT"*) fault=$UNREACHABLE ;;
    *"returned error: 30"[12378]*) fault=$MOVED ;;
    *"could not read Username"* | *"could not read Password"*) fault=$NEEDS_LOGIN ;;
    *"Authentication failed"* | *"returned error: 401"* | *"returned error: 403"*) fault=$LOGIN_REFUSED ;;
    *"repository '"*"' not found"* | *"is this a git repository?"* | *"does not appear to be a git repository"* | \
        *"returned error: 404"* | *"returned error: 410"* | *"dumb http transport"*) fault=$NOT_FOUND ;;
    *"fsck error"* | *"bad object"* | *"is corrupt"* | *"invalid index-pack output"*"fsck"*) fault=$CORRUPT ;;
    *"returned error: 429"* | *"returned error: 5"[0-9][0-9]* | *"RPC failed"* | *"early EOF"* | \
        *"unexpected disconnect"* | *"hung up unexpectedly"*) fault=$UNAVAILABLE ;;
    *"certificate problem"* | *"certificate verification failed"* | *"SSL: "* | *"SSL_connect"* | \
        *"SSL connect error"* | *"gnutls_handshake() failed"* | *"TLS connection"*) fault=$NOT_TRUSTED ;;
    *) fault=$OTHER ;;
    esac
}

give_up() {
    printf '%s' "$said" >&2
    judge
    exit "$fault"
}

begin() {
    rm -rf .git
    try init --quiet --template= --object-format="$1" . || give_up
    try remote add -- origin "$CLONE_URL" || give_up
}

# Fetches $2 with $1 commits of its history.
fetch() {
    try fetch --quiet --no-tags --no-recurse-submodules --depth="$1" -- origin "$2" && return
    case $said in
    *"mismatched algorithms: client sha1; server sha256"*)
        begin sha256
        fetch "$1" "$2"
        return
        ;;
    *"returned error: 30"[12378]*)
        # GitLab sends an address without .git to the one with it. Of all redirects only this one is taken, by guess.
        case $CLONE_URL in
        *.git) ;;
        *)
            CLONE_URL=$CLONE_URL.git
            try remote set-url -- origin "$CLONE_URL" || give_up
            fetch "$1" "$2"
            return
            ;;
        esac
        ;;
    esac
    return 1
}

is_missing() {
    case $said in
    *"couldn't find remote ref"*) return 0 ;;
    *) return 1 ;;
    esac
}

# No such reference: is there any at all?
give_up_on_branch() {
    if [ -z "$(git ls-remote -- origin 2>/dev/null </dev/null | head -c 1)" ]; then
        exit "$EMPTY"
    fi
    exit "$BRANCH_NOT_FOUND"
}

fetch_branch() {
    fetch 1 "refs/heads/$CLONE_BRANCH" && return
    is_missing || give_up
    fetch 1 "refs/tags/$CLONE_BRANCH" && return
    is_missing || give_up
    give_up_on_branch
}

# The server gives no commit by its hash, so it is looked for in the branch's history.
search_commit() {
    reference=${CLONE_BRANCH:+refs/heads/$CLONE_BRANCH}
    for depth in 50 1000 20000; do
        if ! fetch "$depth" "${reference:-HEAD}"; then
            is_missing || give_up
            exit "$COMMIT_NOT_FOUND"
        fi
        git cat-file -e "$CLONE_COMMIT^{commit}" 2>/dev/null && return
    done
    exit "$COMMIT_NOT_FOUND"
}

fetch_commit() {
    fetch 1 "$CLONE_COMMIT" && return
    case $said in
    *"not our ref"* | *"unadvertised object"* | *"couldn't find remote ref"* | *"no such remote ref"*) search_commit ;;
    *) give_up ;;
    esac
}

# Fails when the files of commit $1 would take more disk than allowed, before the first is written: what came as one
# small pack may be gigabytes. A file takes whole blocks, so that a million empty ones count too.
fits() {
    git ls-tree -r -l --full-tree "$1" | (
        total=0
        while read -r mode kind object size path; do
            case $size in
            *[!0-9]* | '') size=0 ;;
            esac
            total=$((total + size / 4096 * 4096 + 4096))
            [ "$total" -le "$CLONE_LIMIT_BYTES" ] || exit 1
        done
    )
}

# Before 2.31 git ignores configuration from the environment, and with it most of what protects this phase.
[ "$(git config http.followRedirects 2>/dev/null)" = false ] || exit "$NO_GIT"

# The objects arrive as one file. Without the signal, git says that a file grew too large instead of dying silently.
trap '' XFSZ
blocks=$((CLONE_LIMIT_BYTES / 512))
# shellcheck disable=SC3045 # dash, bash and busybox all have it
if (ulimit -f "$blocks") 2>/dev/null; then
    ulimit -f "$blocks"
fi


begin "$CLONE_OBJECT_FORMAT"
if [ -n "$CLONE_COMMIT" ]; then
    fetch_commit
    commit=$(git rev-parse --verify --quiet "$CLONE_COMMIT^{commit}") || exit "$COMMIT_NOT_FOUND"
elif [ -n "$CLONE_BRANCH" ]; then
    fetch_branch
    commit=$(git rev-parse --verify --quiet 'FETCH_HEAD^{commit}') || exit "$BRANCH_NOT_FOUND"
else
    if ! fetch 1 HEAD; then
        is_missing || give_up
        give_up_on_branch
    fi
    commit=$(git rev-parse --verify --quiet 'FETCH_HEAD^{commit}') || exit "$BRANCH_NOT_FOUND"
fi

fits "$commit" || exit "$TOO_LARGE"
try checkout --quiet --force --detach "$commit" -- || give_up

if [ -n "$CLONE_SUBMODULES" ]; then
    if ! try submodule --quiet update --init --recursive --depth=1 --jobs=2; then
        printf '%s' "$said" >&2
        judge
        case $fault in
        "$TOO_LARGE" | "$STALLED") exit "$fault" ;;
        *) exit "$SUBMODULE" ;;
        esac
    fi
    # Their .git files name folders that are about to go. Git never checks such a name out itself.
    find . -mindepth 2 -name .git -not -path './.git/*' -exec rm -rf {} +
fi

git log -1 --encoding=UTF-8 --no-show-signature --no-color --format='%H%x00%an%x00%ae%x00%ct%x00%B' "$commit" |
    head -c 65536 >.git/switchyard-commit
find .git -mindepth 1 -maxdepth 1 -not -name switchyard-commit -exec rm -rf {} +
printf 'Checked out commit %s\n' "$commit"
