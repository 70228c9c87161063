package cluster_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/tapwire/shadowcat-cluster/cluster"
)

func TestEveryLimitIsSharedButThoseOfOneReplica(t *testing.T) {
	t.Parallel()
	own := []string{"ReportInterval", "StoreTimeout", "OutageGrace"}
	base := cluster.DefaultConfig().Shared()
	fields := reflect.TypeFor[cluster.Config]()
	for i := range fields.NumField() {
		changed := cluster.DefaultConfig()
		field := reflect.ValueOf(&changed).Elem().Field(i)
		field.SetInt(field.Int() + int64(time.Second))
		isOwn := slices.Contains(own, fields.Field(i).Name)
		differ := base.Differ(changed.Shared())
		if isOwn != (len(differ) == 0) || len(differ) > 1 {
			t.Errorf("%s changed: %q differ", fields.Field(i).Name, differ)
		}
		if same := base.Digest() == changed.Shared().Digest(); same != isOwn {
			t.Errorf("%s changed: the digest is the same: %v", fields.Field(i).Name, same)
		}
	}
}

func TestALimitThatOneReplicaDoesNotKnowIsNoDifference(t *testing.T) {
	t.Parallel()
	newer := cluster.DefaultConfig().Shared()
	newer["invented_later"] = "1"
	older := cluster.DefaultConfig().Shared()
	if differ := append(newer.Differ(older), older.Differ(newer)...); len(differ) > 0 {
		t.Errorf("%q differ", differ)
	}
	if newer.Digest() == older.Digest() {
		t.Error("their digests are the same")
	}
}
