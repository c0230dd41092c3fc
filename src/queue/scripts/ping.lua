#!lua flags=allow-oom
-- Notes in the books how many shards the store has, if nobody has yet. Being a script that may write, it is
-- refused where the work's scripts would be: on a replica, while loading, after a failed save.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5]  with how many shards the caller works
-- Result: with how many the store was made, as text

redis.call('HSETNX', STAT, 'shards', ARGV[5])
return redis.call('HGET', STAT, 'shards')
