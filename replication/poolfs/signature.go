package poolfs

import "bytes"

// signatures are what other systems write at fixed places, from the beginning of a device, or of its last MiB.
var signatures = [...]struct {
	name string
	at   int
	text string
}{
	{"a GUID partition table", 512, "EFI PART"},
	{"a GUID partition table", 4096, "EFI PART"},
	{"XFS", 0, "XFSB"},
	{"ext2, ext3 or ext4", 1080, "\x53\xef"},
	{"btrfs", 0x10040, "_BHRfS_M"},
	{"LUKS", 0, "LUKS\xba\xbe"},
	{"LVM", 512, "LABELONE"},
	{"swap", 4086, "SWAPSPACE2"},
	{"NTFS", 3, "NTFS    "},
	{"Linux RAID", 4096, "\xfc\x4e\x2b\xa9"},
	{"Linux RAID", 0, "\xfc\x4e\x2b\xa9"},
	{"VMFS", 0, "\x0d\xd0\x01\xc0"},
	{"bcache", 4120, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca"},
	{"ZFS", 128 << 10, "\x0c\xb1\xba\x00\x00\x00\x00\x00"},
	{"ZFS", 128 << 10, "\x00\x00\x00\x00\x00\xba\xb1\x0c"},
	{"a partition table", 510, "\x55\xaa"}, // last: file systems of boot disks have it too
}

// signature tells what the first or last MiB of a device holds; "" if it is zeros.
func signature(b []byte) string {
	for _, s := range signatures {
		if s.at+len(s.text) <= len(b) && string(b[s.at:s.at+len(s.text)]) == s.text {
			return s.name
		}
	}
	if len(bytes.TrimLeft(b, "\x00")) > 0 {
		return "data of an unknown kind"
	}
	return ""
}
