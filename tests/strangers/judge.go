// Judges a log's public folder by Go's own modules for checksum databases: golang.org/x/mod/sumdb/{note,tlog}.
//
// In: one JSON object on standard input. Out: how many entries it has proven, or what is wrong and exit status 1.
// It signs nothing, writes nothing, and knows nothing of gatebook but the paths of C2SP's tlog-tiles.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

type task struct {
	Log   string   // folder with checkpoint and tile/
	Key   string   // the log's vkey
	Old   []string // files: checkpoints of the same log, kept from before
	Prove []int64  // indices of entries to prove one by one
}

// tiles reads tile files; it is believed only as far as the signed root proves what it reads.
type tiles struct{ folder string }

func (t tiles) Height() int { return 8 }

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range wanted {
		path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
		data, err := os.ReadFile(filepath.Join(t.folder, path))
		if err != nil {
			return nil, err
		}
		if len(data) != tile.W*tlog.HashSize {
			return nil, fmt.Errorf("%s: %d bytes", path, len(data))
		}
		all = append(all, data)
	}
	return all, nil
}

func open(path string, verifier note.Verifier) (tlog.Tree, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return tlog.Tree{}, err
	}
	opened, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[0] != verifier.Name() {
		return tlog.Tree{}, errors.New("not a checkpoint of this log")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return tlog.Tree{}, errors.New("not a root")
	}
	tree := tlog.Tree{N: size}
	copy(tree.Hash[:], root)
	return tree, nil
}

// bundle reads the entries that lie under tile n of level 0.
func bundle(folder string, n int64, width int) ([][]byte, error) {
	tile := tlog.Tile{H: 8, L: -1, N: n, W: width}
	path := strings.Replace(tile.Path(), "tile/8/data/", "tile/entries/", 1)
	data, err := os.ReadFile(filepath.Join(folder, path))
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for len(data) > 0 {
		if len(data) < 2 {
			return nil, fmt.Errorf("%s: ends within an entry", path)
		}
		end := 2 + int(binary.BigEndian.Uint16(data))
		if len(data) < end {
			return nil, fmt.Errorf("%s: ends within an entry", path)
		}
		entries = append(entries, data[2:end])
		data = data[end:]
	}
	if len(entries) != width {
		return nil, fmt.Errorf("%s: %d entries", path, len(entries))
	}
	return entries, nil
}

func judge(t task) (int64, error) {
	verifier, err := note.NewVerifier(t.Key)
	if err != nil {
		return 0, err
	}
	tree, err := open(filepath.Join(t.Log, "checkpoint"), verifier)
	if err != nil {
		return 0, err
	}
	if tree.N == 0 {
		empty, _ := base64.StdEncoding.DecodeString("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=")
		if !bytes.Equal(tree.Hash[:], empty) { // RFC 6962, 2.1: the hash of an empty list is SHA-256("")
			return 0, errors.New("not the root of no entries")
		}
		return 0, nil
	}
	reader := tlog.TileHashReader(tree, tiles{t.Log})
	root, err := tlog.TreeHash(tree.N, reader)
	if err != nil {
		return 0, err
	}
	if root != tree.Hash {
		return 0, errors.New("another root than was signed")
	}
	for first := int64(0); first < tree.N; first += 256 {
		width := min(256, int(tree.N-first))
		entries, err := bundle(t.Log, first/256, width)
		if err != nil {
			return 0, err
		}
		var indices []int64
		for i := range entries {
			indices = append(indices, tlog.StoredHashIndex(0, first+int64(i)))
		}
		hashes, err := reader.ReadHashes(indices)
		if err != nil {
			return 0, err
		}
		for i, entry := range entries {
			if tlog.RecordHash(entry) != hashes[i] {
				return 0, fmt.Errorf("entry %d is not what was signed", first+int64(i))
			}
		}
	}
	for _, index := range t.Prove {
		proof, err := tlog.ProveRecord(tree.N, index, reader)
		if err != nil {
			return 0, err
		}
		entries, err := bundle(t.Log, index/256, min(256, int(tree.N-index/256*256)))
		if err != nil {
			return 0, err
		}
		if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(entries[index%256])); err != nil {
			return 0, err
		}
	}
	for _, path := range t.Old {
		old, err := open(path, verifier)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		if old.N == 0 {
			continue
		}
		proof, err := tlog.ProveTree(tree.N, old.N, reader)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash); err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
	}
	return tree.N, nil
}

func main() {
	var t task
	if err := json.NewDecoder(os.Stdin).Decode(&t); err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
	size, err := judge(t)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(size)
}
