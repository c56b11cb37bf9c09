package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
)

// metaBucket holds the version; callers' buckets have a prefix, so that no name collides.
const (
	metaBucket   = "meta"
	versionKey   = "version"
	bucketPrefix = "b:"
)

// openDatabase opens or makes the database and checks its version before anything is written.
func openDatabase(path string) (*bolt.DB, error) {
	fresh := !exists(path)
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout:        time.Second,
		NoFreelistSync: true,
		FreelistType:   bolt.FreelistMapType,
	})
	if errors.Is(err, bolt.ErrTimeout) {
		return nil, fmt.Errorf("%s is in use by another process: %w", path, errdefs.ErrFailedPrecondition)
	}
	if err != nil {
		if fresh {
			os.Remove(path) // half-made, as on a full disk; it would not open next time
		}
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err := checkDatabase(db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func checkDatabase(db *bolt.DB) error {
	var have bool
	err := db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(metaBucket))
		if b == nil {
			return nil
		}
		have = true
		v, _ := binary.Uvarint(b.Get([]byte(versionKey)))
		if v > formatVersion {
			return versionError(db.Path(), v)
		}
		return nil
	})
	if err != nil || have {
		return err
	}
	return db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(metaBucket))
		if err != nil {
			return err
		}
		return b.Put([]byte(versionKey), binary.AppendUvarint(nil, formatVersion))
	})
}

// store writes an overlay in one transaction.
func (s *Store) store(o overlay) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		for name, keys := range o {
			b, err := tx.CreateBucketIfNotExists([]byte(bucketPrefix + name))
			if err != nil {
				return err
			}
			for k, v := range keys {
				if err := storeOne(b, k, v); err != nil {
					return fmt.Errorf("store %s %q: %w", name, k, err)
				}
			}
		}
		return nil
	})
}

func storeOne(b *bolt.Bucket, key string, v value) error {
	if v.deleted {
		return b.Delete([]byte(key))
	}
	return b.Put([]byte(key), v.data)
}

func (s *Store) getStored(bucket, key string) (val []byte, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(bucketPrefix + bucket))
		if b == nil {
			return notFound(bucket, key)
		}
		v := b.Get([]byte(key))
		if v == nil {
			return notFound(bucket, key)
		}
		val = slices.Clone(v)
		return nil
	})
	return val, err
}

func (s *Store) readStored(bucket string) (map[string][]byte, error) {
	all := make(map[string][]byte)
	err := s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(bucketPrefix + bucket))
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			all[string(k)] = slices.Clone(v)
			return nil
		})
	})
	return all, err
}
