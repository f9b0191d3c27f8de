# Turns a fresh Debian tree ($root) into the emulated host: kernel, a start disk of two files, the few modules needed.
# Runs as the tree's root user, outside the tree. $site holds the Python packages that were copied in.
umask 022

work=$root/tmp/kernel
mkdir -p "$work/tree"
meta=linux-image-cloud-amd64
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"

# the kernel is unpacked, not installed: its scripts would make a start disk for any machine, with udev in it
package=$(apt-cache depends "$meta" | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
[ -n "$package" ] || { echo "$meta names no kernel" >&2; exit 1; }
(cd "$work" && apt-get -q download "$package" busybox-static)
for file in "$work"/*.deb; do dpkg-deb -x "$file" "$work/tree"; done
modules=$(cd "$work/tree" && ls -d usr/lib/modules/* lib/modules/* 2>/dev/null | head -n 1)
version=${modules##*/}
busybox=$(cd "$work/tree" && ls usr/bin/busybox bin/busybox 2>/dev/null | head -n 1)
install -m 0755 "$work/tree/$busybox" "$root/usr/bin/busybox"

# modules: what q35 with virtio and KVM on AMD need, closed over dependencies, decompressed
# and what a guest needs that boots this kernel in place of our own, to compare the two
guest="virtio_mmio virtio_blk squashfs overlay vmw_vsock_virtio_transport"
mkdir -p "$root/usr/lib/modules"
mv "$work/tree/$modules" "$root/usr/lib/modules/$version"
chroot "$root" depmod "$version"
for name in virtio_blk virtio_net virtio_rng kvm kvm_amd squashfs overlay loop tun $guest; do
  chroot "$root" modprobe -S "$version" --show-depends "$name" || true
done | sed -n 's/^insmod \([^ ]*\).*$/\1/p' | sort -u >"$work/keep"
# for the guest in the order in which they go in
for name in $guest; do
  chroot "$root" modprobe -S "$version" --show-depends "$name"
done | sed -n 's/^insmod .*\/\([^/]*\.ko\).*$/\1/p' | awk '!seen[$0]++' >"$work/guest-modules"
mkdir -p "$work/kept"
chroot "$root" python3 -I - <<'PYTHON'
import lzma, pathlib
for line in pathlib.Path("/tmp/kernel/keep").read_text().split():
    path = pathlib.Path(line)
    data = path.read_bytes()
    if path.suffix == ".xz":
        data, path = lzma.decompress(data), path.with_suffix("")
    elif path.suffix != ".ko":
        raise SystemExit(f"{path}: unknown compression")
    pathlib.Path("/tmp/kernel/kept", path.name).write_bytes(data)
PYTHON
for name in virtio_blk virtio_net kvm kvm-amd squashfs overlay; do
  ls "$work/kept/$name.ko" >/dev/null
done
rm -rf "$root/usr/lib/modules/$version/kernel"
mkdir "$root/usr/lib/modules/$version/kernel"
mv "$work"/kept/*.ko "$root/usr/lib/modules/$version/kernel/"
chroot "$root" depmod "$version"

# the kernel itself, decompressed: an emulated CPU would need a second for that at each start
chroot "$root" python3 -I - "$version" >"$work/vmlinux.zst" <<'PYTHON'
import pathlib, struct, sys
image = next(pathlib.Path("/tmp/kernel/tree/boot").glob("vmlinuz-*")).read_bytes()
sectors, (offset, length) = image[0x1F1], struct.unpack_from("<II", image, 0x248)
start = (sectors + 1) * 512 + offset
payload = image[start : start + length - 4]  # the last four bytes are the unpacked size
if not payload.startswith(b"\x28\xb5\x2f\xfd"):
    raise SystemExit("the kernel is not compressed with zstd")
sys.stdout.buffer.write(payload)
PYTHON
chroot "$root" zstd -q -d -f /tmp/kernel/vmlinux.zst -o /boot/vmlinuz

# the start disks: busybox and the modules between the kernel and its root file system, for the host and for a guest
chroot "$root" python3 -I - "$version" <<'PYTHON'
import pathlib, sys

MODULES = pathlib.Path("/usr/lib/modules", sys.argv[1], "kernel")
HOST = ("ext4", "ro,noatime", "/sbin/mayfly-host-init")
GUEST = ("squashfs", "ro", "/sbin/mayfly-init")
INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in %s; do /bin/busybox insmod /$module; done
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 200 ]; do /bin/busybox usleep 10000; tries=$((tries + 1)); done
/bin/busybox mount -t %s -o %s /dev/vda /root || exit 1
/bin/busybox mount --move /dev /root/dev
exec /bin/busybox switch_root /root %s
"""

def start_disk(modules, root):
    number, out = 0, bytearray()

    def add(name, mode, content=b"", device=(0, 0)):
        nonlocal number, out
        number += 1
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name) + 1, 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += b"\0" * (-len(out) % 4) + content
        out += b"\0" * (-len(out) % 4)

    for directory in ("bin", "dev", "root", "proc"):
        add(directory, 0o040755)
    add("dev/console", 0o020600, device=(5, 1))
    add("init", 0o100755, (INIT % (" ".join(modules), *root)).encode())
    add("bin/busybox", 0o100755, pathlib.Path("/usr/bin/busybox").read_bytes())
    for module in modules:
        add(module, 0o100644, (MODULES / module).read_bytes())
    add("TRAILER!!!", 0)
    return out

guest = pathlib.Path("/tmp/kernel/guest-modules").read_text().split()
pathlib.Path("/boot/initrd").write_bytes(start_disk(["virtio_blk.ko"], HOST))
pathlib.Path("/boot/guest-initrd").write_bytes(start_disk(guest, GUEST))
PYTHON
echo "$version" >"$root/boot/version"

# process 1: mounts, then the code that came on its own small disk
cat >"$root/usr/sbin/mayfly-host-init" <<'INIT'
#!/usr/bin/busybox sh
b=/usr/bin/busybox
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
$b mount -t proc -o nosuid,nodev,noexec proc /proc
$b mount -t sysfs -o nosuid,nodev,noexec sys /sys
[ -c /dev/null ] || $b mount -t devtmpfs dev /dev
$b mkdir -p /dev/pts /dev/shm
$b mount -t devpts -o nosuid,noexec,gid=5,mode=620,ptmxmode=666 devpts /dev/pts
$b mount -t tmpfs -o nosuid,nodev,mode=1777 shm /dev/shm
$b mount -t tmpfs -o nosuid,nodev,mode=755 run /run
$b mkdir /run/mayfly
$b tar -x -f /dev/vdc -C /run/mayfly
exec /usr/bin/python3 /run/mayfly/boot_host.py
INIT
chmod 0755 "$root/usr/sbin/mayfly-host-init"

# mount points, and what a read-only tree must have from the start
mkdir -p "$root/var/lib/mayfly" "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/sys/fs/cgroup" 2>/dev/null || true
mkdir -p "$root/var/lib/mayfly"
printf 'mayfly-host\n' >"$root/etc/hostname"
printf '127.0.0.1 localhost mayfly-host\n' >"$root/etc/hosts"
rm -f "$root/etc/resolv.conf" "$root/etc/machine-id"
: >"$root/etc/resolv.conf"
echo 6d6179666c79686f73746d6179666c79 >"$root/etc/machine-id"

rm -rf "$work" "$root"/var/lib/apt "$root"/var/cache/* "$root"/var/log/* "$root"/var/lib/dpkg/info
rm -rf "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/locale "$root"/usr/share/info
rm -rf "$root"/usr/lib/python3*/ensurepip "$root"/usr/lib/python3*/idlelib "$root"/usr/lib/python3*/test
chown -R 0:0 "$root/opt/mayfly"
chmod -R u+rwX,go+rX,go-w "$root/opt/mayfly"
find "$root/usr/lib/python3" "$root"/usr/lib/python3.* "$root/opt/mayfly" -name '__pycache__' -prune -exec rm -rf {} +
chroot "$root" python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/mayfly/site \
  $(cd "$root" && ls -d usr/lib/python3.* usr/lib/python3/dist-packages | sed 's|^|/|')
chroot "$root" env PYTHONPATH=/opt/mayfly/site python3 -B -c "import $SITE_IMPORTS"
