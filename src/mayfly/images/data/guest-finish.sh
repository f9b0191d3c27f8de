# Turns a fresh Debian tree ($root) into the image $image. Runs as the tree's root user, outside the tree; $trim is a
# script that takes out what this image does not need, $preload the names of the modules that its runner imports before
# a template is made, $promised what must be importable, with commas, $sources the top-level modules whose sources are kept (all, where it is empty).
umask 022

# the user that programs run as
echo 'user:x:1000:1000:user:/home/user:/bin/bash' >>"$root/etc/passwd"
echo 'user:x:1000:' >>"$root/etc/group"
[ ! -f "$root/etc/shadow" ] || echo 'user:!:20000::::::' >>"$root/etc/shadow"
install -d -o 1000 -g 1000 -m 0755 "$root/home/user"

# mount points, and files that the agent covers or rewrites at each start
mkdir -p "$root/mayfly" "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/mnt"
install -d -m 1777 "$root/tmp" "$root/var/tmp"
printf 'sandbox\n' >"$root/etc/hostname"
printf '127.0.0.1 localhost sandbox\n::1 localhost\n' >"$root/etc/hosts"
rm -f "$root/etc/resolv.conf" "$root/etc/machine-id" "$root/var/lib/dbus/machine-id"
: >"$root/etc/resolv.conf"
: >"$root/etc/machine-id"
ln -sf /usr/share/zoneinfo/UTC "$root/etc/localtime"
[ -e "$root/usr/bin/python" ] || ln -s python3 "$root/usr/bin/python"

# process 1: Python from the start, since a shell and `mount` would be a fifth of what it takes to reach the agent
cat >"$root/usr/sbin/mayfly-init" <<'INIT'
#!/usr/bin/python3 -SE
import _ctypes, sys
class Function(_ctypes.CFuncPtr): _flags_ = 1
mount = Function(_ctypes.dlsym(_ctypes.dlopen(None, 2), "mount"))
if mount(b"/dev/vdb", b"/mayfly", b"squashfs", 7, None):  # read-only, no set-uid files, no devices
    sys.exit("mayfly-init: the agent's drive cannot be mounted")
sys.argv, sys.path[0] = ["/mayfly/boot.py"], "/mayfly"
import boot
INIT
chmod 0755 "$root/usr/sbin/mayfly-init"

# what the image holds, told by its own Python; before anything that dpkg knows is taken away
install -d -m 0755 "$root/usr/share/mayfly"
chroot "$root" dpkg-query -W -f '${Package} ${Version} ${source:Package}\n' >"$root/usr/share/mayfly/packages"
printf '%s\n' $preload >"$root/usr/share/mayfly/preload"

# nothing here raises rights, and nothing installs packages
find "$root" -xdev -type f -perm /6000 -exec chmod ug-s {} +
rm -rf "$root"/usr/lib/python3*/ensurepip "$root"/usr/lib/python3*/idlelib "$root"/usr/lib/python3*/turtledemo
rm -rf "$root"/usr/lib/python3*/test "$root"/usr/lib/python3*/lib2to3/tests
rm -f "$root"/usr/lib/python3*/lib-dynload/*_test* "$root"/usr/lib/python3*/lib-dynload/*xxtest* "$root"/usr/lib/python3*/lib-dynload/xx*
rm -rf "$root"/var/lib/apt "$root"/var/cache/* "$root"/var/log/* "$root"/var/lib/dpkg/info "$root"/var/backups/*
rm -rf "$root"/usr/share/man "$root"/usr/share/locale "$root"/usr/share/info "$root"/boot
rm -f "$root/usr/bin/py3compile"
eval "$trim"

# compiled files that are never compared with their sources: one look-up less an import, and no dependence on time
find "$root/usr/lib/python3" "$root"/usr/lib/python3.* -name '__pycache__' -prune -exec rm -rf {} +
chroot "$root" python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash \
  $(cd "$root" && ls -d usr/lib/python3.* usr/lib/python3/dist-packages | sed 's|^|/|')
[ -z "$sources" ] || chroot "$root" python3 -B -I - $sources <<'SOURCES'
import pathlib, sys

packages = pathlib.Path("/usr/lib/python3/dist-packages")
for compiled in packages.rglob("__pycache__/*.pyc"):
    name = compiled.name.split(".", 1)[0]
    source = compiled.parent.parent / f"{name}.py"
    top = source.relative_to(packages).parts[0].removesuffix(".py")
    if top not in sys.argv[1:] and source.exists():
        compiled.rename(source.with_suffix(".pyc"))
        source.unlink()
SOURCES

# everything that is promised can be imported; Matplotlib's list of fonts, which its first use makes, is kept
if [ -n "$promised" ]; then
  install -d -m 0700 "$root/home/user/.cache" "$root/home/user/.cache/matplotlib"
  chroot "$root" env HOME=/home/user python3 -B -W ignore -c "import $promised, matplotlib.font_manager"
  rm -rf "$root/home/user/.config"
  chown -R 1000:1000 "$root/home/user"
fi

chroot "$root" python3 -B -I - "$image" >"$root/usr/share/mayfly/manifest.json" <<'MANIFEST'
import importlib.machinery, importlib.metadata, json, pathlib, pkgutil, platform, re, sys

def present(name):
    try:
        return importlib.machinery.PathFinder.find_spec(name) is not None
    except (ImportError, ValueError):
        return False

def licences(text):
    # the short names of a machine-readable copyright file; any other says it in its own words
    return sorted({name.strip()[:80] for name in re.findall(r"^Licen[cs]e:[ \t]*(\S.*)$", text, re.MULTILINE)})

fixed = set(sys.builtin_module_names)
standard = {name for name in sys.stdlib_module_names if name in fixed or present(name)}
for name in ("_frozen_importlib", "_frozen_importlib_external"):
    standard.add(name)
found = {module.name for module in pkgutil.iter_modules()} - standard
rows = [line.split(" ") for line in pathlib.Path("/usr/share/mayfly/packages").read_text().splitlines()]
texts = {}
for package, _, source in rows:
    path = pathlib.Path("/usr/share/doc", package, "copyright")
    if path.is_file():
        texts[package] = path.read_text(errors="replace")
        texts.setdefault(source, texts[package])  # for packages of that source which only point there
preload = pathlib.Path("/usr/share/mayfly/preload").read_text().split()
for name in preload:
    if not present(name.partition(".")[0]) and name not in fixed:
        sys.exit(f"the image has no module {name} to preload")
json.dump(
    {
        "image": sys.argv[1],
        "python": platform.python_version(),
        "stdlib": sorted(standard),
        "modules": sorted(found),
        "distributions": {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()},
        "packages": {package: version for package, version, _ in rows},
        "licences": {package: licences(texts.get(package, texts.get(source, ""))) for package, _, source in rows},
        "preload": preload,
    },
    sys.stdout, sort_keys=True, indent=1,
)
MANIFEST
rm "$root/usr/share/mayfly/packages"
find "$root/usr/share/doc" -type l -delete
