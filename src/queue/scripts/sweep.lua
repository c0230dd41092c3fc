#!lua flags=allow-oom
-- Takes over work whose lease ran out. Rates do not matter: it had been granted.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5]  the lane
-- ARGV[6]  the new owner
-- ARGV[7]  at most how much
-- ARGV[8]  the cursor, '0-0' to begin
-- Result: {now, group made anew, next cursor ('0-0': came round), items, buried, the store's birth}
-- An answer that is lost leaves its work leased to the new owner, for a later sweep to find.

local lane, owner, most, cursor = ARGV[5], ARGV[6], tonumber(ARGV[7]), ARGV[8]

local has_suspect = false

-- The leases that ran out, by entry: taking over forgets whose they were. What was added later than a lease ago
-- cannot be among them.
local function lapsed_leases(idle)
  local newest = manual and '+' or whole(math.max(0, now - lease_ms))
  local leases = {}
  local reply = redis.pcall('XPENDING', stream_of(lane), GROUP, 'IDLE', whole(idle), cursor, newest, most)
  -- Without a group nothing is leased.
  if is_error(reply) then return leases end
  for _, lease in ipairs(reply) do leases[lease[1]] = lease end
  return leases
end

-- Whether the owner of a lease was heard of when it was more than half over and not renewed. Whoever knows of a
-- lease renews it sooner: this one lives and does not know of it, or could not renew it. The work is not what took
-- it down.
local function is_outlived(lease)
  local heard = lease and moment(redis.call('ZSCORE', OWNERS, lease[2]))
  return heard ~= nil and heard >= server_ms - lease[3] + lease_ms / 2
end

-- Looks at one entry that was taken over, and what its lease was before: the item to hand out, or nil.
local function consider(entry, fields, lease)
  local piece = piece_in(lane, entry, fields)
  if not piece then return nil end
  if piece.index > 0 and piece.maybe ~= '1' then
    piece.maybe = '1'
    write_piece(piece)
  end
  local number = lease_of(lane, entry)[4]
  local excused = excused_at(piece, entry)
  if is_outlived(lease) then
    excused = excused + 1
    excuse(piece, entry, excused)
  end
  piece.handed = math.max(1 - number, piece.handed - excused)
  local handed = piece.handed + number
  if end_if_unfit(piece, entry, handed) then return nil end
  local held = piece.destination ~= '' and held_until(lane, piece.destination)
  if held then
    drop_entry(lane, entry)
    -- The server has counted this look as a hand-out.
    piece.handed = handed - 1
    park(piece, held)
    return nil
  end
  local suspect = is_suspect(handed)
  if suspect and has_suspect then
    drop_entry(lane, entry)
    piece.handed = handed - 1
    put_off(piece)
    return nil
  end
  has_suspect = has_suspect or suspect
  return work_item(piece, entry, number)
end

secure_lane(lane)
redis.call('ZADD', OWNERS, whole(now), owner)
-- Leases count from a test's time, idleness from the server's.
local idle = lease_ms + (manual and math.max(0, server_ms - now) or 0)
local leases = lapsed_leases(idle)
local reply = with_group(lane, 'XAUTOCLAIM', stream_of(lane), GROUP, owner, whole(idle), cursor, 'COUNT', most)
local items, entries = {}, {}
if reply then
  cursor = reply[1]
  for _, read in ipairs(reply[2]) do
    local item = consider(read[1], read[2], leases[read[1]])
    if item then
      items[#items + 1] = item
      entries[#entries + 1] = read[1]
    end
  end
  list_deadlines('NX')
  date_leases(lane, owner, entries)
  -- Somebody removed entries that were leased.
  if #reply[3] > 0 then lose_track() end
else
  cursor = '0-0'
end
return { now, recreated, cursor, items, buried, birth() }
